"""Peak memory per photo in flight, one process per loop.

`python -m anti_i2v_lit.bench.memory product|plain SETTINGS.json PHOTOS` prints bytes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from anti_i2v_lit.bench.speed import run_plain, run_product
from anti_i2v_lit.bench.subjects import device_of, jobs_of, loop_of
from anti_i2v_lit.settings import Settings, resolve

# Large blocks go back to the system when freed, so that the resident set is what is in use.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes per photo in flight beyond a warm process with model and photos.

    Attributes:
        product: of the product's loop.
        plain: of the plain loop.
    """

    product: float
    plain: float

    @property
    def ratio(self) -> float:
        """Product over plain loop."""
        return self.product / self.plain


def measure_memory(settings: Settings) -> Memory:
    """Run a process for each loop, one after the other.

    The product holds `attack.batch_size` photos at once, the plain loop one. On a GPU it is the
    allocator's peak, else the largest resident set (Linux only).

    Raises:
        ValueError: a process failed; carries what it wrote.
    """
    size = settings.attack.batch_size
    with TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(json.dumps(settings.plain()), encoding="utf-8")
        return Memory(
            product=_growth("product", path, size) / size, plain=_growth("plain", path, 1)
        )


def _growth(variant: str, settings: Path, num_photos: int) -> float:
    command = [sys.executable, "-m", __name__, variant, str(settings), str(num_photos)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **_ALLOCATOR}
    )
    if done.returncode:
        raise ValueError(f"memory of the {variant} loop: its process failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def growth_bytes(variant: str, settings: Settings, num_photos: int) -> int:
    """Do one loop's work in this process; bytes at its peak beyond those before it.

    Raises:
        ValueError: neither a GPU nor Linux.
    """
    loop = loop_of(settings)
    jobs = jobs_of(settings, loop, num_photos)
    for job in jobs:
        loop.begin(job)
    loop.judge(jobs[0], jobs[0].canvas)  # libraries and prompts load at the first call
    gauge = _gpu_peak if device_of(settings) == "cuda" else _resident_peak
    before = gauge(restart=True)
    {"product": run_product, "plain": run_plain}[variant](loop, jobs, settings.attack.steps)
    return gauge(restart=False) - before


def _gpu_peak(*, restart: bool) -> int:
    if restart:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return torch.cuda.max_memory_allocated()


def _resident_peak(*, restart: bool) -> int:
    if not _CLEAR.exists():
        raise ValueError("memory is measured on Linux or on a GPU; leave it out with --parts")
    if restart:
        _CLEAR.write_text("5")  # the kernel's peak restarts at the present size
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None, "the kernel reports VmHWM"
    return int(found[1]) * 1024


def main(words: list[str]) -> None:
    """Measure the loop that the command line names."""
    variant, path, num_photos = words
    plain = json.loads(Path(path).read_text(encoding="utf-8"))
    print(growth_bytes(variant, resolve(plain), int(num_photos)))


if __name__ == "__main__":
    main(sys.argv[1:])
