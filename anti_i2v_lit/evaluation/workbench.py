"""One process's share of an evaluation: a photo and a generator at a time, every clip once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anti_i2v_lit.data.faces import FaceDetector
from anti_i2v_lit.evaluation.chains import chained
from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.further import Further, build_further
from anti_i2v_lit.evaluation.judge import Judge, build_judge, has_face
from anti_i2v_lit.evaluation.looking import Looker
from anti_i2v_lit.evaluation.plan import CLEAN, Plan, Task
from anti_i2v_lit.evaluation.records import PhotoRecord, RecordStore
from anti_i2v_lit.evaluation.seen import KnownPhoto, SeenClip
from anti_i2v_lit.evaluation.settings import EvaluationSettings
from anti_i2v_lit.evaluation.store import Result, ResultStore
from anti_i2v_lit.evaluation.strangers import NO_FACE_IN_PHOTO, packed
from anti_i2v_lit.evaluation.surveying import Surveyor
from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.purifications.base import Purification


class Stopped(Exception):
    """The work was asked to stop; all finished clips are kept."""


class ModelUnusable(ValueError):
    """A generator cannot be loaded, for whichever photo; the message says why."""


class Workbench:
    """Makes and judges the clips of photos; every result is on the disk before the next batch.

    Args:
        plan: what is evaluated.
        store: results.
        records: what is known of the photos.
        judge: takes the standard figures, without a generator's encoder.
        further: takes the other ones.
        device: where generators run that do not say it themselves: "cpu", "cuda:1" ...
        stopping: asked before every batch.
        listener: told in a sentence what is being done.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        store: ResultStore,
        records: RecordStore,
        judge: Judge,
        further: Further,
        device: str = "auto",
        stopping: Callable[[], bool] = lambda: False,
        listener: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.plan, self.store, self.judge, self.further = plan, store, judge, further
        self.records, self.listener = records, listener
        self.device, self._stopping = device, stopping
        self.surveyor = Surveyor(plan, records, judge, further)
        self._purifications: dict[tuple[str, int], Purification | None] = {}
        self._generator: tuple[str, VideoGenerator] | None = None

    def is_done(self, key: str, label: str) -> bool:
        """Whether every row of a photo by one generator is there; decodes nothing."""
        record = self.surveyor.known(key)
        return record is not None and not self._pending(record, label)

    def missing(self) -> list[tuple[str, str]]:
        """(generator, key) of all photos that lack rows."""
        units = itertools.product(self.plan.generators, self.plan.photos)
        return [(label, key) for label, key in units if not self.is_done(key, label)]

    def work(self, key: str, label: str) -> None:
        """Make every missing row of a photo by one generator.

        Raises:
            Stopped: asked to; what is done is kept.
            ModelUnusable: the generator cannot be loaded.
            ValueError, OSError: the photo cannot be used.
        """
        record = self.surveyor.record(key)
        pending = self._pending(record, label)
        if not pending:
            return
        self.listener(f"{key}, {label}: {len(pending)} clips")
        generator = self._loaded(label)
        purifications = self._purifications_at(min(generator.view_size))
        looker = Looker(self.plan, record, self.judge.detector, purifications)
        photo = _PhotoAtWork(self, looker, generator)
        for batch in _batches(photo.with_clean(pending), self.plan.settings.batch_size):
            if self._stopping():
                raise Stopped(key)
            photo.make(batch)
        self._tidy(record, label)

    def _pending(self, record: PhotoRecord, label: str) -> list[Task]:
        """Tasks without a row, and those whose clip should lie on the disk and does not."""
        return [task for task in self.plan.tasks(record, label) if not self._is_made(task)]

    def _is_made(self, task: Task) -> bool:
        if not self.is_judged(task):
            return False
        return not is_kept(self.plan, task) or self.store.has_clip(task.clip_name)

    def is_judged(self, task: Task) -> bool:
        """Whether a task's row is there, with the face vectors that the calibration needs."""
        row = self.store.find(task.identity)
        needed = set(self.judge.networks.values()) if self.plan.calibrates(task) else set()
        return row is not None and needed <= set(row.faces)

    def _purifications_at(self, work_px: int) -> dict[str, Purification | None]:
        """Label -> purification for a view of this shorter side; built once for each size."""
        found = {}
        for entry in self.plan.entries:
            place = (entry.label, work_px if entry.follows_view else 0)
            if place not in self._purifications:
                self._purifications[place] = entry.build(work_px)
            found[entry.label] = self._purifications[place]
        return found

    def _loaded(self, label: str) -> VideoGenerator:
        if self._generator is None or self._generator[0] != label:
            self._generator = None  # the former one's memory first
            try:
                built = build_generator(self.plan.generators[label], self.device)
            except (ValueError, OSError) as error:
                raise ModelUnusable(f"generator {label}: {error}") from error
            self._generator = (label, built)
        return self._generator[1]

    def _tidy(self, record: PhotoRecord, label: str) -> None:
        """Drop clean clips that nothing is compared with any more."""
        kept = {task.clip_name for task in kept_tasks(self.plan, record, label)}
        tasks = self.plan.tasks(record, label)
        self.store.drop_clips(t.clip_name for t in tasks if t.clip_name not in kept)


class _PhotoAtWork:
    """A photo with one generator: its views and clean clips are remembered between batches.

    Faces are looked for once, in all clips of a batch together.
    """

    def __init__(self, bench: Workbench, looker: Looker, generator: VideoGenerator) -> None:
        self._bench, self._looker, self._generator = bench, looker, generator
        self._judge = bench.judge.beside(generator.encode)
        self._views: dict[tuple[str, str, str], Tensor] = {}
        self._known: dict[str, KnownPhoto] = {}
        self._shifts: dict[tuple[str, str, str], dict[str, float]] = {}
        self._clean: dict[str, SeenClip] = {}

    def with_clean(self, pending: Sequence[Task]) -> list[Task]:
        """The pending tasks, after clean clips that were judged before and are not kept."""
        listed = {task.clip_name for task in pending}
        needed = {t.clean_name: t for t in pending if t.protection != CLEAN}
        lost = [
            _clean_of(task)
            for name, task in needed.items()
            if name not in listed and not self._bench.store.has_clip(name)
        ]
        return [*lost, *pending]

    def make(self, batch: Sequence[Task]) -> None:
        """Make, judge and store a batch of clips."""
        settings = self._bench.plan.settings
        self._look_at(batch)
        clips = chained(
            self._generator,
            torch.stack([self._views[_place(task)] for task in batch]),
            prompts=[task.prompt for task in batch],
            seeds=[task.seed for task in batch],
            keys=[task.key for task in batch],
            chains=settings.long_clip_chains,
        )
        searched = [self._know(task.counterpart).has_face for task in batch]
        seen = self._judge.look(list(clips), searched)
        made = sorted(zip(batch, seen, strict=True), key=lambda pair: pair[0].protection != CLEAN)
        results = []
        for task, clip in made:
            if task.protection == CLEAN:
                self._clean[task.clip_name] = clip
            if task.protection == CLEAN or self._is_kept(task):
                picture = self._views[_place(task)]
                self._bench.store.save_clip(task.clip_name, clip.frames, picture)
            if not self._bench.is_judged(task):
                results.append(self._judged(task, clip))
        if results:
            self._bench.store.append(results)
        near = {task.clean_name for task in batch}  # what the next batch may be compared with
        self._clean = {name: clip for name, clip in self._clean.items() if name in near}

    def _look_at(self, batch: Sequence[Task]) -> None:
        """Make the views of a batch that are not there yet, and measure their latents."""
        new = {_place(task): task for task in batch if _place(task) not in self._views}
        if not new:
            return
        size = self._generator.view_size
        views = {place: self._looker.view(task, size) for place, task in new.items()}
        known = [self._know(task.counterpart) for task in new.values()]
        shifts = self._judge.judge_all_latents(known, torch.stack(list(views.values())))
        self._views.update(views)
        self._shifts.update(zip(views, shifts, strict=True))

    def _is_kept(self, task: Task) -> bool:
        return is_kept(self._bench.plan, task)

    def _judged(self, task: Task, clip: SeenClip) -> Result:
        known = self._know(task.counterpart)
        clean = None if task.protection == CLEAN else self._clean_clip(task.clean_name)
        measured = self._judge.measure(known, clip, clean)
        figures, by_frame = dict(measured.figures), dict(measured.by_frame)
        more, more_by_frame = self._further(task, clip, known)
        figures.update({**more, **self._shifts[_place(task)]})
        return Result(
            photo=task.key,
            protection=task.protection,
            purification=task.entry.label,
            prompt=task.prompt,
            seed=task.seed,
            identity=task.identity,
            figures=figures,
            generator=task.generator,
            frame=task.counterpart,
            by_frame={**by_frame, **more_by_frame},
            faces=self._faces(clip) if self._bench.plan.calibrates(task) else {},
        )

    def _clean_clip(self, name: str) -> SeenClip:
        if name not in self._clean:
            frames = self._bench.store.load_clip(name)
            assert frames is not None, "clean clips come first"
            self._clean[name] = self._judge.look([frames], [False])[0]
        return self._clean[name]

    def _know(self, name: str) -> KnownPhoto:
        if name not in self._known:
            clean = self._looker.counterpart(name)
            view = self._looker.framed_view(clean.photo, clean.faces, self._generator.view_size)
            self._known[name] = self._judge.know(clean.photo, view, clean.faces)
        return self._known[name]

    def _faces(self, clip: SeenClip) -> dict[str, str]:
        """Network with its digest -> mean of the frames' face vectors, faceless ones counted 0."""
        networks = self._judge.networks
        if clip.landmarks is None:
            return dict.fromkeys(networks.values(), NO_FACE_IN_PHOTO)
        seen = has_face(clip.landmarks)
        if not seen.any():
            return dict.fromkeys(networks.values(), "")
        return {networks[n]: packed(v[seen].sum(0) / len(v)) for n, v in clip.vectors.items()}

    def _further(
        self, task: Task, clip: SeenClip, known: KnownPhoto
    ) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        if not self._bench.further.of_clips:
            return {}, {}
        subject = known.clip(task.identity, clip.frames, clip.landmarks, task.prompt)
        return self._bench.further.judge_clip(subject)


def make_judge(settings: EvaluationSettings, weights: Path | None) -> Judge:
    """The judge of an evaluation, without a generator's encoder."""
    return build_judge(weights, None, FaceDetector(settings.faces))


def make_further(settings: EvaluationSettings, weights: Path | None) -> Further:
    """The further metrics of an evaluation."""
    return build_further(settings.metric_nodes(), weights)


def parts_of(judge: Judge, further: Further) -> list[Any]:
    """What figures depend on, as plain data: part of every row's identity."""
    return [judge.parts, [dict(node) for node in further.nodes]]


def build_generator(node: Mapping[str, Any], device: str) -> VideoGenerator:
    """Load a generator; a device that its settings name wins.

    Raises:
        ValueError: unknown settings, or no such model.
    """
    fields = {name: value for name, value in node.items() if name != "label"}
    if device != "auto" and fields.get("device", "auto") == "auto":
        fields["device"] = device
    return GENERATORS.build(fields)


def kept_tasks(plan: Plan, record: PhotoRecord, label: str) -> Iterator[Task]:
    """The tasks whose clips stay on the disk."""
    return (task for task in plan.tasks(record, label) if is_kept(plan, task))


def is_kept(plan: Plan, task: Task) -> bool:
    """Whether a clip stays: all of them, or one per photo, protection and generator."""
    clips = plan.settings.clips
    if clips.keep == "all":
        return task.protection in (CLEAN, task.like)
    shown = clips.purifications or [plan.entries[0].label]
    first = task.prompt == plan.settings.prompts[0] and task.seed == plan.settings.seeds[0]
    return first and task.entry.label in shown and task.protection in (CLEAN, task.like)


def failure(key: str, label: str, error: Exception) -> Problem:
    """A photo that could not be evaluated."""
    kind = "unreadable" if isinstance(error, OSError) else "failed"
    reason = f"{label}: {error}" if label else str(error)
    return Problem(kind=kind, protection="", photo=key, reason=reason)


def _clean_of(task: Task) -> Task:
    return replace(
        task,
        protection=CLEAN,
        like="",
        identity=task.clean_name,
        clip_name=task.clean_name,
    )


def _place(task: Task) -> tuple[str, str, str]:
    """What a view depends on, for one photo."""
    return task.protection, task.counterpart, task.entry.label


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    return (tasks[i : i + size] for i in range(0, len(tasks), size))
