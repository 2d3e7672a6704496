"""A corpus of tiny photos through shard, cloak, status and verify, against a free surrogate.

`python -m anti_i2v_lit.bench.corpus --samples 100000 --work DIR --out docs/corpus.md` writes the
page of docs/corpus.md: time per photo of everything but the surrogate, and memory over time. It
continues where it was killed. `--cloak-minutes M` stops `cloak` after that time, as an operator
would, and gives stand-ins to the photos that are left, so that status and verify see all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.bench.corpus_inputs import SIZE, fill_up, write_corpus
from anti_i2v_lit.bench.corpus_page import Stage, page
from anti_i2v_lit.bench.free_surrogate import NAME, offer
from anti_i2v_lit.bench.watching import Watched, watch

PER_SHARD = 1000
_STOPPED = 3
SETTINGS: dict[str, Any] = {
    "surrogates": [{"name": NAME, "side_px": 16}],
    "objectives": [{"name": "ira_latent", "direction": "away"}],
    "space": {"name": "rgb"},
    "attack": {"steps": 1, "batch_size": 8, "num_verification_draws": 1},
    "faces": {"min_side_px": min(SIZE)},
    "gate": {"min_psnr_db": 0.0, "min_ssim": 0.0, "max_ciede2000": 0.0, "max_lpips": 0.0},
    "trainer": {"accelerator": "cpu"},
}
"""Of the run: one step, and a gate that lets everything pass."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where everything lies.

    Attributes:
        work: the folder of all.
        samples: photos.
        cloak_minutes: time after which `cloak` is stopped, minutes.
        devices: processes that cloak.
    """

    work: Path
    samples: int
    cloak_minutes: float
    devices: int

    @property
    def out(self) -> Path:
        """The folder of the cloaks."""
        return self.work / "out"

    @property
    def shards(self) -> list[Path]:
        """All input shards, by name."""
        count = -(-self.samples // PER_SHARD)
        return [self.work / "shards" / f"shard-{i:06d}.tar" for i in range(count)]

    def environment(self) -> dict[str, str]:
        """Of the programs: with the free surrogate installed."""
        places = [offer(self.work / "plugin"), *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(places)}


def run_stage(
    corpus: Corpus,
    name: str,
    words: Sequence[str],
    done: Callable[[], int],
    limit_seconds: float = math.inf,
) -> Stage:
    """Run one verb, unless an earlier call did; keep what was seen in a file.

    Raises:
        RuntimeError: it failed; names its log.
    """
    record = corpus.work / f"{name}.json"
    if record.exists():
        return Stage(**json.loads(record.read_text(encoding="utf-8")))
    before, log = done(), corpus.work / f"{name}.log"
    program = [sys.executable, "-m", "anti_i2v_lit", *words]
    print(f"{name}: {before} are done, log in {log}", flush=True)
    seen = watch(program, corpus.environment(), log, done, 1.0, limit_seconds)
    stopped = seen.code == _STOPPED and seen.seconds >= limit_seconds
    if seen.code != 0 and not stopped:
        raise RuntimeError(f"{name} ended with exit code {seen.code}, see {log}")
    stage = _stage(name, seen, before, done())
    record.write_text(json.dumps(dataclasses.asdict(stage)), encoding="utf-8")
    return stage


def _stage(name: str, seen: Watched, before: int, after: int) -> Stage:
    return Stage(
        name=name,
        photos=after - before,
        seconds=seen.seconds,
        cpu_seconds=seen.cpu_seconds,
        samples=[[round(s.seconds, 1), s.rss_bytes, s.done - before] for s in seen.samples],
    )


def measure(corpus: Corpus) -> list[Stage]:
    """Make the corpus and take it through all verbs."""
    work, out = corpus.work, corpus.out
    write_corpus(work / "photos", corpus.samples)
    (work / "cloak.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    shards = work / "shards"
    words = ["shard", str(work / "photos"), "--out", str(shards), f"samples_per_shard={PER_SHARD}"]
    found = [run_stage(corpus, "shard", words, lambda: PER_SHARD * len(list(shards.glob("*.tar"))))]
    last = len(corpus.shards) - 1
    words = ["cloak", f"{shards}/shard-{{000000..{last:06d}}}.tar", "--out", str(out)]
    words += ["--config", str(work / "cloak.yaml"), f"trainer.devices={corpus.devices}"]
    limit = 60 * corpus.cloak_minutes
    found.append(run_stage(corpus, "cloak", words, lambda: _lines(out / "manifest.jsonl"), limit))
    filled = fill_up(corpus.shards, out)
    if filled:
        print(f"{filled} photos got stand-ins", flush=True)
    for verb in ("status", "verify"):
        stage = run_stage(corpus, verb, [verb, str(out)], lambda: 0)
        found.append(dataclasses.replace(stage, photos=corpus.samples))
    return found


def ledger_bytes_per_row(out: Path) -> float:
    """Memory that a program holds per row of a ledger that it has read."""
    tracemalloc.start()
    ledger = Ledger(out)
    num_rows = len(ledger.rows())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / max(1, num_rows)


def _lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def main() -> None:
    """Parse, measure, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000, help="photos")
    parser.add_argument(
        "--cloak-minutes", type=float, default=math.inf, help="stop cloak after that time"
    )
    parser.add_argument("--devices", type=int, default=1, help="processes that cloak")
    parser.add_argument("--work", type=Path, required=True, help="folder that is kept")
    parser.add_argument("--out", type=Path, help="Markdown file")
    given = parser.parse_args()
    corpus = Corpus(
        work=given.work.absolute(),
        samples=given.samples,
        cloak_minutes=given.cloak_minutes,
        devices=given.devices,
    )
    stages = measure(corpus)
    text = page(stages, corpus.samples, corpus.devices, ledger_bytes_per_row(corpus.out))
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
