"""A photo in hand: its pixels, its protected files, its noise, and what a generator is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.evaluation.equal_noise import equal_noise
from anti_i2v_lit.evaluation.inspection import framed
from anti_i2v_lit.evaluation.judge import Detector
from anti_i2v_lit.evaluation.likeness import thumbnail
from anti_i2v_lit.evaluation.plan import CLEAN, Plan, Task
from anti_i2v_lit.evaluation.records import PhotoRecord
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.seeds import generator_for

_UNMOVED = 0.995  # correlation of thumbnails above which faces are where they were


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """A clean photo framed like a protected file.

    Attributes:
        photo: [3, H, W] in [0, 1].
        faces: largest first.
    """

    photo: Tensor
    faces: tuple[Face, ...]


class Looker:
    """Makes what a generator is shown, for one photo at a time, and remembers it.

    Args:
        plan: of the evaluation.
        record: of the photo.
        detector: finds faces.
        purifications: label -> purification; None for nothing.
    """

    def __init__(
        self,
        plan: Plan,
        record: PhotoRecord,
        detector: Detector,
        purifications: Mapping[str, Purification | None],
    ) -> None:
        self._plan, self._record, self._detector = plan, record, detector
        self._purifications = purifications
        self._framing = Framing(plan.settings.framing)
        self._photo = plan.read(plan.photos[record.key])
        self._files: dict[str, Tensor] = {}
        self._counterparts: dict[str, Counterpart] = {}
        self._faces: dict[tuple[str, str], tuple[Face, ...]] = {}
        # The last of each alone: there may be many of them, and photos are large.
        self._noise: _Last = _Last()
        self._clean_after: _Last = _Last()

    def counterpart(self, name: str) -> Counterpart:
        """The clean photo framed as `name` says; "" for the photo as it is."""
        if name not in self._counterparts:
            photo = self._photo
            if name:
                alike = next(f for f in self._record.files if f.counterpart == name)
                photo = framed(photo, alike.frame, self._file(alike.protection))
            faces = tuple(self._detector.detect(photo))
            self._counterparts[name] = Counterpart(photo=photo, faces=faces)
        return self._counterparts[name]

    def view(self, task: Task, view_size: tuple[int, int]) -> Tensor:
        """What the generator is shown for a task: purified, then framed, [3, h, w] in [0, 1].

        The frame is chosen on the clean counterpart after the same purification, so a photo and
        its cloak are cut alike.
        """
        clean = self.counterpart(task.counterpart)
        faces = self._faces_after(task, clean)
        if task.protection == CLEAN:
            photo = self._purified_clean(task, clean)
        else:
            photo = self._purified(self._pixels(task, view_size), task, clean)
        return self.framed_view(photo, faces, view_size)

    def framed_view(
        self, photo: Tensor, faces: tuple[Face, ...], view_size: tuple[int, int]
    ) -> Tensor:
        """The largest crop that holds the face, as everybody's pipeline would take it."""
        size = (photo.shape[-2], photo.shape[-1])
        view = self._framing.main_view(size, view_size, faces)
        return self._framing.render(photo[None], view, view_size)[0].clamp(0.0, 1.0)

    def _pixels(self, task: Task, view_size: tuple[int, int]) -> Tensor:
        if task.protection == task.like:
            return self._file(task.like)
        clean = self.counterpart(task.counterpart)
        return self._noise.get(
            (task.protection, view_size),
            lambda: equal_noise(
                clean.photo,
                self._file(task.like),
                view_size=view_size,
                look=lambda picture: self.framed_view(picture, clean.faces, view_size),
                key=task.key,
                purpose=task.protection,
            ),
        )

    def _file(self, protection: str) -> Tensor:
        if protection not in self._files:
            matched = next(m for m in self._plan.protections if m.name == protection)
            self._files[protection] = self._plan.read(matched.pairs[self._record.key].file)
        return self._files[protection]

    @torch.no_grad()
    def _purified(self, photo: Tensor, task: Task, clean: Counterpart) -> Tensor:
        purification = self._purifications[task.entry.label]
        if purification is None:
            return photo
        # The same numbers for a photo and its cloak: they differ by the cloak alone.
        source = generator_for(0, task.key, 0, f"purification {task.entry.label}")
        box = clean.faces[0].box if clean.faces else None
        return purification.purify(photo[None], task.entry.severity, source, faces=[box])[0]

    def _purified_clean(self, task: Task, clean: Counterpart) -> Tensor:
        place = (task.counterpart, task.entry.label)
        return self._clean_after.get(place, lambda: self._purified(clean.photo, task, clean))

    def _faces_after(self, task: Task, clean: Counterpart) -> tuple[Face, ...]:
        """Faces of the purified counterpart, which crops and turns may have moved."""
        place = (task.counterpart, task.entry.label)
        if place not in self._faces:
            after = self._purified_clean(task, clean)
            self._faces[place] = faces_after(clean.photo, after, clean.faces, self._detector)
        return self._faces[place]


class _Last:
    """Remembers the last picture that was made."""

    def __init__(self) -> None:
        self._name: object = None
        self._picture: Tensor | None = None

    def get(self, name: object, make: Callable[[], Tensor]) -> Tensor:
        if self._picture is None or self._name != name:
            self._picture = None  # the former one's memory first
            self._name, self._picture = name, make()
        return self._picture


def faces_after(
    before: Tensor, after: Tensor, faces: tuple[Face, ...], detector: Detector
) -> tuple[Face, ...]:
    """Faces of a purified photo: looked for again where the purification moved the picture.

    Args:
        before: [3, H, W] in [0, 1].
        after: the same, purified.
        faces: of `before`.
        detector: finds faces.

    Returns:
        The faces of `after`; `faces` where nothing moved or none is found.
    """
    if after is before or float(thumbnail(after) @ thumbnail(before)) > _UNMOVED:
        return faces
    return tuple(detector.detect(after)) or faces
