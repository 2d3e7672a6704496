"""The page of docs/corpus.md: what each stage took, and its memory over time."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from anti_i2v_lit.bench.corpus_inputs import SIZE

_MOMENTS = (0.1, 0.25, 0.5, 0.75, 1.0)
_MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One verb's run.

    Attributes:
        name: the verb.
        photos: how many it did.
        seconds: wall time.
        cpu_seconds: processor time.
        samples: [seconds, resident bytes, photos done] over time.
    """

    name: str
    photos: int
    seconds: float
    cpu_seconds: float
    samples: list[list[float]]

    def resident_at(self, share: float) -> float:
        """Median of the resident bytes around a share of the wall time."""
        spent = self.samples[-1][0]
        seen = [s for s in self.samples if s[1] > 0]  # the last look may come after the end
        near = [s[1] for s in seen if abs(s[0] - share * spent) <= 0.03 * spent]
        return statistics.median(near or [seen[-1][1]])

    @property
    def peak_bytes(self) -> float:
        """Largest resident memory seen."""
        return max(sample[1] for sample in self.samples)

    @property
    def bytes_per_photo(self) -> float | None:
        """Slope of the resident memory over photos done, least squares.

        From the first tenth of them to the last but one. None where progress cannot be seen from
        outside.
        """
        points = [(s[2], s[1]) for s in self.samples if 0.1 * self.photos < s[2] < self.photos]
        if len({done for done, _ in points}) < 10:
            return None
        slope, _ = statistics.linear_regression(*zip(*points, strict=True))
        return float(slope)


def page(stages: Sequence[Stage], samples: int, devices: int, ledger_bytes_per_row: float) -> str:
    """Markdown of the whole page.

    Args:
        stages: what was measured.
        samples: photos of the corpus.
        devices: processes that cloaked.
        ledger_bytes_per_row: memory per row of a ledger that was read.
    """
    cloaked = next(stage.photos for stage in stages if stage.name == "cloak")
    command = f"python -m anti_i2v_lit.bench.corpus --samples {samples} --work DIR"
    command += f" --devices {devices}" * (devices > 1)
    lines = [
        "# A corpus of many photos",
        "",
        f"{samples:,} JPEG photos of {SIZE[0]} x {SIZE[1]} pixels went through `shard`, `cloak`,",
        "`status` and `verify`, each a program of its own. The surrogate averages pixels and costs",
        "next to nothing, and a photo gets one step, so the times are what everything else takes:",
        "reading, finding faces, applying, writing, measuring, judging, and keeping records.",
        "Remake the page with",
        "",
        "```bash",
        f"{command} --out docs/corpus.md",
        "```",
        "",
    ]
    if cloaked < samples:
        lines += [
            f"`cloak` was given all of them, but stopped after {cloaked:,} for lack of time",
            "(`--cloak-minutes`). The others got stand-ins (the photo, compressed again, and a",
            "row), so that `status` and `verify` saw all of them.",
            "",
        ]
    return (
        "\n".join(
            [*lines, *_times(stages), "", *_memory(stages), *_notes(devices, ledger_bytes_per_row)]
        )
        + "\n"
    )


def _notes(devices: int, ledger_bytes_per_row: float) -> list[str]:
    together = [
        "",
        f"`cloak` ran as {devices} processes; its processor time and memory are theirs together.",
    ]
    return [
        *(together if devices > 1 else []),
        "",
        f"A ledger that was read takes {ledger_bytes_per_row:.0f} bytes of memory per row: a",
        "photo's key and where its row lies in the manifest. The list of the input's photos is in",
        "memory from the start. The report that `cloak` writes at the end reads the rows one after",
        "the other and keeps 80 bytes of each, so that its medians are exact. Steps of 8 MB are",
        "Python's table of names, in which `pathlib` keeps parts of paths and which is made anew",
        "when it is full of old ones.",
        "All programs start Python with torch first, which takes seconds and about 500 MB.",
        f"When the page was written, {os.getloadavg()[0]:.0f} programs wanted the machine's",
        f"{os.cpu_count()} cores; the more there are, the less the wall times say.",
    ]


def _times(stages: Sequence[Stage]) -> list[str]:
    lines = [
        "| stage | photos | wall, s | processor, s | per photo: wall, ms | processor, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages:
        each = 1000 / max(1, stage.photos)
        lines.append(
            f"| {stage.name} | {stage.photos:,} | {stage.seconds:.0f} | {stage.cpu_seconds:.0f} | "
            f"{each * stage.seconds:.2f} | {each * stage.cpu_seconds:.2f} |"
        )
    return lines


def _memory(stages: Sequence[Stage]) -> list[str]:
    heads = " | ".join(f"at {share:.0%}" for share in _MOMENTS)
    lines = [
        "Resident memory in MB at shares of each stage's wall time, its peak, and the growth while",
        "photos were done (from the first tenth of them on):",
        "",
        f"| stage | {heads} | peak | bytes per photo |",
        "| --- |" + " --- |" * (len(_MOMENTS) + 2),
    ]
    for stage in stages:
        values = " | ".join(f"{stage.resident_at(share) / _MB:.0f}" for share in _MOMENTS)
        slope = stage.bytes_per_photo
        grown = "-" if slope is None else f"{slope:.0f}"
        lines.append(f"| {stage.name} | {values} | {stage.peak_bytes / _MB:.0f} | {grown} |")
    return lines
