"""The judge's seam: one number per photo, its mean, and what both mean."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_photos
from anti_i2v_lit.metrics.keyed import KeyedMetric
from anti_i2v_lit.metrics.requirements import Requirement


@dataclass(frozen=True, kw_only=True)
class CloakedPhoto:
    """A photo and its cloak, as metrics of visibility see them.

    Attributes:
        key: unique name of the pair.
        photo: clean photo [3, H, W] in [0, 1], float32.
        cloak: cloaked photo, same shape and range.
    """

    key: str
    photo: Tensor
    cloak: Tensor

    def __post_init__(self) -> None:
        """Refuse wrong shapes, types and ranges."""
        check_pair(self.cloak, self.photo)


@dataclass(frozen=True, kw_only=True)
class GeneratedClip:
    """A clip made from a photo (clean or cloaked), beside the clean photo.

    Attributes:
        key: unique name of the clip.
        photo: the clean photo [3, h, w] in [0, 1], float32, as the generator framed it.
        frames: [T, 3, H, W] in [0, 1], float32.
        photo_landmarks: [5, 2] (x, y) in pixels of `face_photo`: left eye, right eye, nose, left
            and right corner of the mouth, as they lie in the image; None if no face was found.
        frame_landmarks: [T, 5, 2] in pixels of the frames; a frame without a face holds NaN.
            None if nobody looked for faces.
        full_photo: the clean photo [3, H', W'] at full size, for face networks; None if only
            `photo` is at hand.
        photo_key: name of the photo, the same for all its clips, so that metrics look at it once;
            "" makes them look again for every clip.
        prompt: the text that the clip was made from; None if there was none.
    """

    key: str
    photo: Tensor
    frames: Tensor
    photo_landmarks: Tensor | None = None
    frame_landmarks: Tensor | None = None
    full_photo: Tensor | None = None
    photo_key: str = ""
    prompt: str | None = None

    def __post_init__(self) -> None:
        """Refuse wrong shapes, types and ranges."""
        if self.photo.ndim != 3:
            raise ValueError(f"photo: expected [3, h, w], got {tuple(self.photo.shape)}")
        check_photos(self.photo[None], f"photo {self.key}")
        check_photos(self.frames, f"frames of {self.key}")
        if self.full_photo is not None:
            check_photos(self.full_photo[None], f"full photo {self.key}")
        _check_landmarks(self.photo_landmarks, (5, 2), "photo_landmarks")
        _check_landmarks(self.frame_landmarks, (len(self.frames), 5, 2), "frame_landmarks")

    @property
    def face_photo(self) -> Tensor:
        """The photo that `photo_landmarks` refer to: `full_photo`, else `photo`."""
        return self.photo if self.full_photo is None else self.full_photo


S = TypeVar("S", CloakedPhoto, GeneratedClip)


def check_pair(cloak: Tensor, photo: Tensor) -> None:
    """Refuse anything but two float32 images [3, H, W] in [0, 1] of one size.

    Raises:
        ValueError: with what arrived and what was expected.
    """
    if photo.ndim != 3 or cloak.shape != photo.shape:
        raise ValueError(
            f"expected a cloak of the photo's shape [3, H, W], got {tuple(cloak.shape)} and "
            f"{tuple(photo.shape)}"
        )
    check_photos(photo[None], "photo")
    check_photos(cloak[None], "cloak")


class Metric(KeyedMetric, ABC, Generic[S]):
    """A number per photo or clip, averaged over all ranks.

    A variant provides `direction`, `unit`, `source`, `needs` and `_score`; `score`, `update` and
    `compute` are final. Values stay beside their keys, so a mean is never all that is left.

    Attributes:
        direction: which way is better for the person who protects the photo; "none" for a
            figure that only describes.
        unit: of the number.
        source: where the definition comes from.
        needs: weight files and packages that the package does not carry; `availability` says
            which are here.
        may_be_undefined: whether NaN is a legitimate score (a face that is not there).
    """

    Config: type[Any]
    direction: ClassVar[Literal["higher", "lower", "none"]]
    unit: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[Requirement, ...]] = ()
    may_be_undefined: ClassVar[bool] = False

    @abstractmethod
    def _score(self, subject: S) -> float:
        """The value of one photo or clip; NaN where it is undefined."""

    @final
    @torch.no_grad()
    def score(self, subject: S) -> float:
        """The value of one photo or clip, without counting it; NaN where it is undefined.

        Raises:
            ValueError: an undefined value of a metric that is always defined.
        """
        value = self._score(subject)
        if math.isnan(value) and not self.may_be_undefined:
            raise ValueError(f"{type(self).__name__} of {subject.key} is not a number")
        return value

    @final
    def update(self, subjects: Sequence[S]) -> None:
        """Judge photos or clips.

        Args:
            subjects: any number of them; a key that comes again is counted once.

        Raises:
            ValueError: an undefined value of a metric that is always defined.
        """
        for subject in subjects:
            self._remember(subject.key, torch.tensor([self.score(subject)], dtype=torch.float64))

    @final
    def compute(self) -> Tensor:
        """Mean over the photos of all ranks with a defined value; NaN if there are none."""
        defined = [v for v in _numbers(self._by_key()).values() if not math.isnan(v)]
        return torch.tensor(sum(defined) / len(defined) if defined else math.nan)

    @final
    def per_photo(self) -> dict[str, float]:
        """Key -> value over all ranks, sorted by key; every rank has to call it."""
        return _numbers(self._gathered())


def _numbers(rows: Mapping[str, Tensor]) -> dict[str, float]:
    return {key: row.item() for key, row in rows.items()}


def _check_landmarks(landmarks: Tensor | None, shape: tuple[int, ...], name: str) -> None:
    if landmarks is not None and tuple(landmarks.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(landmarks.shape)}")
