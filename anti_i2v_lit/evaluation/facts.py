"""Parts of an outcome: models, files, photos, verdicts, and what went wrong."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

HELD_OUT, UNKNOWN, WHITE_BOX = "held-out", "unknown", "white-box"
# What is known of a model's part in computing a cloak, in the order in which figures are shown.
KNOWLEDGE = (HELD_OUT, UNKNOWN, WHITE_BOX)
UNREADABLE = "unreadable"
PROTECTED, WEAKENED, UNPROTECTED = "protected", "weakened", "not protected"
NOT_A_CLOAK, NOT_JUDGED = "not a cloak", "not judged"
VERDICTS = (PROTECTED, WEAKENED, UNPROTECTED, NOT_A_CLOAK, NOT_JUDGED)


def knowledge_of(generator: str, white_box: Collection[str], told_by: str) -> str:
    """What is known of a generator's part in computing a folder's cloaks, one of `KNOWLEDGE`.

    Args:
        generator: label.
        white_box: labels of those that took part, or may have.
        told_by: who says which models took part; "" where nobody does.
    """
    if generator in white_box:
        return WHITE_BOX
    return HELD_OUT if told_by else UNKNOWN


@dataclass(frozen=True, kw_only=True)
class GeneratorFacts:
    """One image-to-video model of the attacker.

    Attributes:
        label: its name in this evaluation, unique.
        name: registered name.
        path: "embedded" or the model's folder.
        model_sha256: digest of the model's files; "" where `path` leads to no weights.
        view_size: (H, W) of its frames, pixels.
        num_frames: frames of a clip, the chained ones included.
        settings: all its settings.
    """

    label: str
    name: str
    path: str
    model_sha256: str
    view_size: tuple[int, int]
    num_frames: int
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ProtectionFacts:
    """One protected folder.

    Attributes:
        name: as given on the command line.
        folder: where it lies.
        source: "manifest" (its rows say what belongs together), "shards" or "folder".
        surrogates: models that computed the cloaks, `name:path`; may be empty.
        told_by: who says so: "manifest", "user", "manifest and the user", or "" where nobody says
            it of all cloaks.
        white_box: labels of the generators among them, or that may be. Of all others `told_by`
            decides: they are held-out, or "unknown" where nobody says.
        noise: name of the noise of equal size that it is compared with, as in the rows.
        num_pairs: photos with a protected file that was judged.
        num_missing: photos without a protected file.
        num_failed: pairs that could not be judged, or are no cloaks.
    """

    name: str
    folder: str
    source: str
    surrogates: tuple[str, ...]
    white_box: tuple[str, ...]
    noise: str
    num_pairs: int
    num_missing: int
    num_failed: int
    told_by: str = ""

    def knowledge(self, generator: str) -> str:
        """What is known of a generator's part in computing the cloaks, one of `KNOWLEDGE`."""
        return knowledge_of(generator, self.white_box, self.told_by)


@dataclass(frozen=True, kw_only=True)
class PurificationFacts:
    """What was done to a file before a clip was made.

    Attributes:
        label: its name in this evaluation, unique; "none" for nothing.
        name: registered name; "" for nothing.
        severity: in [0, 1]; 0 for nothing.
        tier: tier of the gauntlet that it belongs to; "" for none.
        settings: all its settings.
        description: one sentence.
    """

    label: str
    name: str
    severity: float
    tier: str
    settings: dict[str, Any]
    description: str


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """One figure.

    Attributes:
        name: key of the figure in rows and estimates.
        title: in words.
        unit: of the number.
        better: "lower", "higher" or "none", for the person who protects a photo.
        digits: decimals worth showing.
        group: heading of its table.
        source: where the definition comes from.
    """

    name: str
    title: str
    unit: str
    better: str
    digits: int
    group: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said about a photo, one protection and one generator.

    Attributes:
        protection: name.
        generator: label; "" for the verdict over all held-out generators (over the unknown ones
            where none is held-out, over the white-box ones where there are no others).
        knowledge: one of `KNOWLEDGE`; "" where the photo has no cloak to judge.
        verdict: one of `VERDICTS`; the worst over the purifications.
        reason: a sentence.
        protected_after: labels of purifications after which it is protected.
        weakened_after: after which the clip changed more than noise changes it, no more.
        lost_after: after which it changed no more than noise does.
        figure: identity figure that decided, such as "dlib_mean_zero"; "" where none did.
        hardest: label of the purification after which `value` is highest; "" where unknown.
        value: mean over the photo's clips of `figure`, after `hardest`; NaN where undefined.
        clean: the same of the clean photo's clips; NaN where undefined.
    """

    protection: str
    generator: str
    knowledge: str
    verdict: str
    reason: str
    protected_after: tuple[str, ...] = ()
    weakened_after: tuple[str, ...] = ()
    lost_after: tuple[str, ...] = ()
    figure: str = ""
    hardest: str = ""
    value: float = math.nan
    clean: float = math.nan


@dataclass(frozen=True, kw_only=True)
class ProtectedFile:
    """The protected file of a photo.

    Attributes:
        protection: name.
        path: where it lies.
        sha256: of its bytes.
        frame: which part of the photo it shows: left, top, right, bottom as shares.
        pairing: how the two were recognised as a pair, a sentence.
        figures: visibility, column -> value (psnr in dB, ssim, lpips, ciede2000, ...).
        residual_rms_8bit: root mean square of the change, grey levels.
        counterpart: name of the clean photo framed alike; "" for the photo as it is.
        coarse_rms_8bit: the change without fine detail, grey levels; see `coarse.py`.
    """

    protection: str
    path: str
    sha256: str
    frame: tuple[float, float, float, float]
    pairing: str
    figures: dict[str, float]
    residual_rms_8bit: float
    counterpart: str = ""
    coarse_rms_8bit: float = math.nan


@dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """One clean photo and what became of it.

    Attributes:
        key: its name.
        path: where it lies.
        sha256: of its bytes.
        size: (H, W), pixels.
        has_face: whether a face was found; identity is undefined without one.
        files: its protected files.
        verdicts: over several generators first (`generator` empty), then one per generator.
    """

    key: str
    path: str
    sha256: str
    size: tuple[int, int]
    has_face: bool
    files: tuple[ProtectedFile, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much stands behind a mean: photos, prompts and seeds, and clips in all."""

    photos: int
    prompts: int
    seeds: int
    clips: int


NO_COUNTS = Counts(photos=0, prompts=0, seeds=0, clips=0)


@dataclass(frozen=True, kw_only=True)
class AbsentMetric:
    """A metric that was asked for and could not be taken: its name, why, and how to get it."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that the reader must know.

    Attributes:
        kind: "swapped", "faint", "missing", "unreadable", "ambiguous", "frame", "changed",
            "unpaired" or "failed".
        protection: name; "" where it concerns the clean photo.
        photo: key; "" where it concerns the whole folder.
        reason: a sentence.
        fails: whether it makes the exit code 2.
    """

    kind: str
    protection: str
    photo: str
    reason: str
    fails: bool = True


@dataclass(frozen=True, kw_only=True)
class KeptClip:
    """A clip kept for the report.

    Attributes:
        photo: key.
        protection: name; "clean" for the photo's own clip.
        generator: label.
        purification: label.
        prompt: its text.
        seed: its seed.
        path: safetensors file with "frames" [T, 3, H, W], uint8, relative to the outcome's folder.
        picture: the same file's tensor "picture" [3, H, W], uint8: what the generator was given.
    """

    photo: str
    protection: str
    generator: str
    purification: str
    prompt: str
    seed: int
    path: str
    picture: str = "picture"
