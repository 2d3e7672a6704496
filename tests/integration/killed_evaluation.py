"""Evaluate in children of which the first are killed (-9) once they have stored enough rows.

Usage: killed_evaluation.py FOLDER ROWS ROWS ... FOLDER holds `photos` and `ours`; each child is
killed when `FOLDER/out` has so many rows, and the last one is left alone. The children are forked,
so that a kill costs no imports; each lists the clips that it makes in `FOLDER/made.txt`. Prints the
number of kills that hit a running child and the last one's exit status.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from anti_i2v_lit.evaluation import workbench
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.lit.evaluating import evaluate
from tests.evaluation.fakes import FadingGenerator

VALUES = {
    "generators": [{"name": "cogvideox", "label": "a"}, {"name": "svd", "label": "b"}],
    "seeds": [0, 1, 2],
    "gauntlet": ["none", "grey"],
    "metrics": ["motion"],
    "batch_size": 4,
    "statistics": {"resamples": 50},
    "trainer": {"accelerator": "cpu"},
}


class ListingGenerator(FadingGenerator):
    """Writes down what it makes; waits to be killed once enough results are stored."""

    def __init__(self, label: str, folder: Path, stop: int) -> None:
        super().__init__()
        self._label, self._folder, self._stop = label, folder, stop

    def _generate(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        with (self._folder / "made.txt").open("a") as file:
            for photo, seed in zip(photos, seeds, strict=True):
                file.write(f"{self._label} {seed} {photo.double().sum().item():.6f}\n")
        while num_rows(self._folder) >= self._stop:
            time.sleep(0.01)
        return super()._generate(photos, list(prompts), list(seeds))


def child(folder: Path, stop: int) -> None:
    """Run to the end and leave without Python's clean-up, which belongs to the parent."""
    code = 1
    try:
        workbench.build_generator = lambda node, device: ListingGenerator(
            str(node["label"]), folder, stop
        )
        code, _ = evaluate(
            load_evaluation_settings(values=VALUES),
            clean=folder / "photos",
            cloaked={"ours": folder / "ours"},
            out=folder / "out",
        )
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def num_rows(folder: Path) -> int:
    """Whole lines of results on the disk."""
    parts = (folder / "out" / "rows").glob("results*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in parts)


def main() -> int:
    """Kill, restart, and finish undisturbed."""
    folder, stops = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    torch.set_num_threads(1)
    hits = 0
    for stop in [*stops, sys.maxsize]:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            child(folder, stop)
        status = None
        while status is None:
            finished, found = os.waitpid(pid, os.WNOHANG)
            if finished:
                status = found
            elif num_rows(folder) >= stop:
                os.killpg(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                hits += 1
            else:
                time.sleep(0.005)
    print(hits, os.waitstatus_to_exitcode(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
