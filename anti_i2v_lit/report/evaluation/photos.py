"""Which photos the page shows, and the table of all of them."""

from __future__ import annotations

import math
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anti_i2v_lit.evaluation.facts import (
    KNOWLEDGE,
    NOT_A_CLOAK,
    NOT_JUDGED,
    VERDICTS,
    PhotoFacts,
    ProtectedFile,
    Verdict,
)
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.report.evaluation.clips import Comparison
from anti_i2v_lit.report.evaluation.text import ALARM
from anti_i2v_lit.report.pictures import PhotoPictures, photo_pictures

_NO_VERDICT = "no verdict was reached"


@dataclass(frozen=True, kw_only=True)
class ProtectedCard:
    """One protected file of a shown photo; pictures as data URIs, None beyond the limit."""

    file: ProtectedFile
    pictures: PhotoPictures | None
    verdict: Verdict
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One shown photo.

    Attributes:
        photo: its facts.
        place: "worst", "middle", "best", or "" where all photos are shown.
        files: its protected files, in the order of the command line.
        others: verdicts of protections without a file.
        comparisons: clips.
    """

    photo: PhotoFacts
    place: str
    files: tuple[ProtectedCard, ...]
    others: tuple[Verdict, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many photos got which verdict, for one protection.

    Attributes:
        protection: name.
        knowledge: of the models whose verdicts count, one of `facts.KNOWLEDGE`: the first of
            them that there is; "" without verdicts.
        counts: verdict -> photos, all of `VERDICTS`.
        total: photos with a verdict.
    """

    protection: str
    knowledge: str
    counts: dict[str, int]
    total: int


def verdict_of(photo: PhotoFacts, protection: str) -> Verdict:
    """The verdict that stands for a photo: over all held-out generators, else the most alarming.

    Without any, it is "not judged".
    """
    some = [v for v in photo.verdicts if v.protection == protection]
    overall = [v for v in some if not v.generator]
    if overall:
        return overall[0]
    if some:
        return min(some, key=lambda verdict: ALARM.get(verdict.verdict, len(ALARM)))
    return Verdict(
        protection=protection,
        generator="",
        knowledge="",
        verdict=NOT_JUDGED,
        reason=_NO_VERDICT,
    )


def alarm(verdict: Verdict, better: Mapping[str, str]) -> tuple[int, float]:
    """Sorts the most alarming verdict first: by word, then by how alike the clip still is.

    Args:
        verdict: of a photo.
        better: figure -> which way protects; "lower" where it is not named.
    """
    sign = 1 if better.get(verdict.figure) == "higher" else -1
    value = math.inf if math.isnan(verdict.value) else sign * verdict.value
    return ALARM.get(verdict.verdict, len(ALARM)), value


def _directions(outcome: Outcome) -> dict[str, str]:
    return {column.name: column.better for column in outcome.columns}


def ranked(outcome: Outcome) -> list[PhotoFacts]:
    """Photos from the worst to the best verdict of the first protection.

    Where clips were kept, those with clips, and those with a file that is no cloak.
    """
    name = outcome.protections[0].name if outcome.protections else ""
    clips = {clip.photo for clip in outcome.clips}
    shown = [p for p in outcome.photos if not clips or p.key in clips or _fails(outcome, p)]
    better = _directions(outcome)
    return sorted(shown, key=lambda photo: (alarm(verdict_of(photo, name), better), photo.key))


def _fails(outcome: Outcome, photo: PhotoFacts) -> bool:
    """Whether one of a photo's files is no cloak."""
    verdicts = (verdict_of(photo, protection.name) for protection in outcome.protections)
    return any(verdict.verdict == NOT_A_CLOAK for verdict in verdicts)


def chosen(outcome: Outcome, limit: int) -> list[tuple[PhotoFacts, str]]:
    """The photos of the page with their places.

    Those with a file that is no cloak, then a third each from the two ends and the middle.
    """
    order = ranked(outcome)
    if len(order) <= limit:
        all_shown = len(order) == len(outcome.photos)
        return [(photo, "" if all_shown else "with clips") for photo in order]
    failing = [photo for photo in order if _fails(outcome, photo)][:limit]
    order = [photo for photo in order if photo not in failing]
    third = (limit - len(failing)) // 3
    worst, best = limit - len(failing) - 2 * third, third
    start = (len(order) - third) // 2
    start = min(max(start, worst), len(order) - best - third)
    return (
        [(photo, "worst") for photo in failing + order[:worst]]
        + [(photo, "middle") for photo in order[start : start + third]]
        + [(photo, "best") for photo in order[len(order) - best :]]
    )


def card(
    outcome: Outcome,
    folder: Path,
    photo: PhotoFacts,
    *,
    place: str,
    comparisons: list[Comparison],
    pictured: int,
) -> Card:
    """Make the pictures of one photo; unreadable files leave a text.

    Args:
        outcome: of the evaluation.
        folder: that the paths are relative to.
        photo: whose card it is.
        place: "worst", "middle", "best" or "".
        comparisons: its clips.
        pictured: most protected files with pictures.
    """
    names = [p.name for p in outcome.protections]
    files = sorted(photo.files, key=lambda f: _place(f.protection, names))
    made = [
        ProtectedCard(
            file=file,
            pictures=_pictures(folder, photo, file) if number < pictured else None,
            verdict=verdict_of(photo, file.protection),
            verdicts=_single(photo, file.protection),
        )
        for number, file in enumerate(files)
    ]
    with_file = {file.protection for file in files}
    others = [verdict_of(photo, n) for n in names if n not in with_file]
    return Card(
        photo=photo,
        place=place,
        files=tuple(made),
        others=tuple(others),
        comparisons=tuple(comparisons),
    )


def _pictures(folder: Path, photo: PhotoFacts, file: ProtectedFile) -> PhotoPictures:
    return photo_pictures(
        folder / photo.path, folder / file.path, with_crop=False, frame=file.frame
    )


def _single(photo: PhotoFacts, protection: str) -> tuple[Verdict, ...]:
    """Verdicts by single generators, held-out ones first, white-box ones last."""
    some = [v for v in photo.verdicts if v.protection == protection and v.generator]
    return tuple(sorted(some, key=lambda v: KNOWLEDGE.index(v.knowledge)))


def tallies(outcome: Outcome) -> list[Tally]:
    """Verdicts counted, for every protection."""
    found = []
    for protection in outcome.protections:
        verdicts = [verdict_of(photo, protection.name) for photo in outcome.photos]
        judged = [v for v in verdicts if v.reason != _NO_VERDICT]
        counts = {word: sum(v.verdict == word for v in judged) for word in VERDICTS}
        kinds = {v.knowledge for v in judged}
        found.append(
            Tally(
                protection=protection.name,
                knowledge=next((known for known in KNOWLEDGE if known in kinds), ""),
                counts=counts,
                total=len(judged),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the table of all photos; `file` is None where there is no protected file."""

    photo: PhotoFacts
    verdict: Verdict
    rank: int
    file: ProtectedFile | None


def lines(outcome: Outcome) -> list[Line]:
    """A row per photo and protection, the most alarming first."""
    found = []
    for photo in outcome.photos:
        files = {file.protection: file for file in photo.files}
        for protection in outcome.protections:
            verdict = verdict_of(photo, protection.name)
            found.append(
                Line(
                    photo=photo,
                    verdict=verdict,
                    rank=ALARM.get(verdict.verdict, len(ALARM)),
                    file=files.get(protection.name),
                )
            )
    better = _directions(outcome)
    return sorted(found, key=lambda line: alarm(line.verdict, better))


def link(path: str, folder: Path) -> str:
    """An address of a file relative to the page; never one with a scheme."""
    relative = os.path.relpath(folder / path, folder)
    return "./" + urllib.parse.quote(os.fsencode(relative))


def _place(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else len(names)
