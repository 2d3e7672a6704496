"""Is a protected file a cloak of this photo at all, and which part of the photo does it show?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import lpips
from torch import Tensor

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.evaluation.coarse import coarse_change_8bit, other_resizes
from anti_i2v_lit.evaluation.facts import Problem, ProtectedFile
from anti_i2v_lit.evaluation.judge import PSNR_OF_EQUAL_DB
from anti_i2v_lit.evaluation.likeness import ALIKE, CLEAR, REGISTERED, find_frame, likeness
from anti_i2v_lit.evaluation.matching import Pair
from anti_i2v_lit.metrics.imperceptibility import measure_change
from anti_i2v_lit.ops.resize import Box, crop_resize

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
FAR_BELOW = 0.2  # share of the folder's median coarse change
MOST_OF_COPIES_RMS_8BIT = 3.0  # a folder's strong cloaks make no weak one an original
LIKE_A_COPY_RMS_8BIT = 1.5
PSNR_MARGIN_DB = 0.5  # a re-read cloak repeats the manifest's figure to far less than this


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What an inspection found.

    Attributes:
        file: the protected file; None where it cannot be compared with the photo.
        problems: what is wrong.
        is_cloak: False for the original, for another photo's cloak, and for a refused pair.
    """

    file: ProtectedFile | None
    problems: tuple[Problem, ...]
    is_cloak: bool


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A pair with its pixels.

    Attributes:
        protection: name of the protection.
        pair: which files.
        photo: clean photo [3, H, W] in [0, 1].
        protected: protected file [3, h, w] in [0, 1].
        photo_sha256: of the photo's bytes.
        file_sha256: of the protected file's bytes.
        owners: SHA-256 of an original or cloak -> key of its photo, as far as it is known.
        others: key of another photo -> reads it; asked only when the pair does not look alike.
    """

    protection: str
    pair: Pair
    photo: Tensor
    protected: Tensor
    photo_sha256: str
    file_sha256: str
    owners: Mapping[str, str]
    others: Mapping[str, Callable[[], Tensor]]


def inspect(subject: Subject, network: lpips.LPIPS) -> Inspected:
    """Look at a pair; never raises for what is wrong with it.

    Args:
        subject: the pair.
        network: for LPIPS.
    """
    reason = _by_bytes(subject)
    if reason:
        return _no_cloak(subject, "swapped", reason)
    box, score = _frame(subject)
    if score < REGISTERED:
        rival = _rival(subject, score) if score < ALIKE else ""
        if rival:
            return _no_cloak(subject, "swapped", f"it shows {rival}, not this photo")
        return _no_cloak(
            subject,
            "frame",
            f"no part of the photo looks like this file (correlation {score:.2f}, expected "
            f"{REGISTERED}), so the two cannot be framed alike",
        )
    reference = framed(subject.photo, box, subject.protected)
    file = _measured(subject, box, reference, network)
    reason = _by_pixels(subject, file)
    if reason:
        return _no_cloak(subject, "swapped", reason, file)
    return Inspected(file=file, problems=tuple(_changes(subject)), is_cloak=True)


def like_originals(protection: str, changes: Mapping[str, float]) -> list[Problem]:
    """Files of a folder without a manifest that may be originals, saved again or resized.

    One that differs from its photo far less than the folder's files usually do is "swapped": no
    cloak. Else one whose coarse change is as small as a copy's is "faint": that it is a weak cloak
    cannot be ruled out, so it is told and judged.

    Args:
        protection: name.
        changes: key of a photo -> its file's coarse change, grey levels; NaN where unknown.
    """
    known = {key: change for key, change in changes.items() if not math.isnan(change)}
    usual = statistics.median(known.values()) if known else 0.0
    found = []
    for key, change in known.items():
        if change < min(MOST_OF_COPIES_RMS_8BIT, FAR_BELOW * usual):
            kind, reason = "swapped", (
                f"its coarse change is {change:.2f} grey levels (root mean square), that of the "
                f"folder's files {usual:.2f} (median): the original, resized or saved again, seems "
                "to lie in its place"
            )  # fmt: skip
        elif change < LIKE_A_COPY_RMS_8BIT:
            kind, reason = "faint", (
                f"it looks like the original, resized or saved again: its coarse change is "
                f"{change:.2f} grey levels (root mean square), as of a copy; a cloak would be as "
                "weak as that"
            )  # fmt: skip
        else:
            continue
        found.append(Problem(kind=kind, protection=protection, photo=key, reason=reason))
    return found


def framed(photo: Tensor, box: Box, protected: Tensor) -> Tensor:
    """The clean counterpart of a protected file: the same part of the photo at its size."""
    size = (protected.shape[-2], protected.shape[-1])
    if box == WHOLE and tuple(photo.shape[-2:]) == size:
        return photo
    return crop_resize(photo[None], box, size)[0].clamp(0.0, 1.0)


def frame_name(box: Box, size: tuple[int, int], photo_size: tuple[int, int]) -> str:
    """Short name of a counterpart; "" for the photo as it is."""
    if box == WHOLE and size == photo_size:
        return ""
    return f"{size[1]}x{size[0]} of " + ",".join(f"{edge:.4f}" for edge in box)


def _by_bytes(subject: Subject) -> str:
    if subject.file_sha256 == subject.photo_sha256:
        return "it is the original, byte for byte"
    owner = subject.owners.get(subject.file_sha256, "")
    row = subject.pair.row
    own = {subject.pair.photo.key, row.key if row is not None else ""}
    if owner and owner not in own:
        return f"it belongs to {owner}"
    return ""


def _frame(subject: Subject) -> tuple[Box, float]:
    """Which part of the photo the file shows, and how alike they are."""
    height, width = subject.photo.shape[-2:]
    ratio = (height * subject.protected.shape[-1]) / (width * subject.protected.shape[-2])
    alike = likeness(subject.photo, subject.protected)
    if abs(ratio - 1) < 0.01 and alike >= REGISTERED:
        return WHOLE, alike
    return find_frame(subject.photo, subject.protected)


def _rival(subject: Subject, score: float) -> str:
    """Another photo that the file resembles clearly more; "" if there is none."""
    best, name = max(score, ALIKE) + CLEAR, ""
    for key, read in subject.others.items():
        try:
            alike = likeness(read(), subject.protected)
        except (ValueError, OSError):
            continue
        if alike > best:
            best, name = alike, key
    return name


def _measured(subject: Subject, box: Box, reference: Tensor, network: lpips.LPIPS) -> ProtectedFile:
    try:
        figures = measure_change(subject.protected, reference, network)
    except PhotoFailure:  # too small for SSIM
        figures = {}
    figures = {name: min(v, PSNR_OF_EQUAL_DB) for name, v in figures.items()}
    size = (reference.shape[-2], reference.shape[-1])
    change = (subject.protected - reference).double().square().mean().sqrt().item()
    return ProtectedFile(
        protection=subject.protection,
        path=str(subject.pair.file.path),
        sha256=subject.file_sha256,
        frame=box,
        pairing=subject.pair.how,
        figures=figures,
        residual_rms_8bit=255 * change,
        coarse_rms_8bit=_coarse(subject, box, reference),
        counterpart=frame_name(box, size, (subject.photo.shape[-2], subject.photo.shape[-1])),
    )


def _coarse(subject: Subject, box: Box, reference: Tensor) -> float:
    """The file's coarse change against the photo, resized as other programs do where it is."""
    references = [reference]
    if box == WHOLE and reference is not subject.photo:
        references += other_resizes(subject.photo, (reference.shape[-2], reference.shape[-1]))
    return min(coarse_change_8bit(subject.protected, other) for other in references)


def _by_pixels(subject: Subject, file: ProtectedFile) -> str:
    if file.residual_rms_8bit < 1e-3:
        return "it shows the original's pixels, unchanged"
    row, seen = subject.pair.row, file.figures.get("psnr")
    if row is None or row.psnr is None or seen is None or file.frame != WHOLE:
        return ""
    if seen > row.psnr + PSNR_MARGIN_DB:
        return (
            f"it is closer to the original ({seen:.1f} dB) than the cloak of the manifest "
            f"({row.psnr:.1f} dB)"
        )
    return ""


def _changes(subject: Subject) -> list[Problem]:
    """Bytes that are not those of the manifest, though the pictures fit."""
    row = subject.pair.row
    if row is None:
        return []
    found = []
    if row.source_sha256 and row.source_sha256 != subject.photo_sha256:
        found.append("the photo is not the file that was cloaked (its bytes differ)")
    if row.output_sha256 and row.output_sha256 != subject.file_sha256:
        found.append("the cloak is not the file that was written (its bytes differ)")
    return [_problem(subject, "changed", reason) for reason in found]


def _problem(subject: Subject, kind: str, reason: str) -> Problem:
    key = subject.pair.photo.key
    return Problem(kind=kind, protection=subject.protection, photo=key, reason=reason)


def _no_cloak(
    subject: Subject, kind: str, reason: str, file: ProtectedFile | None = None
) -> Inspected:
    text = f"{subject.pair.file.key}: {reason}"
    return Inspected(file=file, problems=(_problem(subject, kind, text),), is_cloak=False)
