"""Protected folders -> purification -> clips -> figures, resumable, one line per clip."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.config import digest
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.framing import Framing, FramingConfig
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.evaluation.judge import Judge, judge_file
from anti_i2v_lit.evaluation.looking import faces_after
from anti_i2v_lit.evaluation.pairs import pair
from anti_i2v_lit.evaluation.seen import KnownPhoto
from anti_i2v_lit.evaluation.store import Result, ResultStore
from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.seeds import derived_seed, generator_for

CLEAN, NO_PURIFICATION = "clean", "none"
SEVERITY = 1.0
_TO_CLEAN_CLIP = ("clip_psnr", "clip_ssim", "clip_lpips")
_ASPECT_TOLERANCE = 0.01
_VERSION = 4  # raise it when a figure's definition changes, so that kept results are not reused


@dataclass(kw_only=True)
class Trials:
    """Which clips are made of every photo: each prompt with each seed.

    Attributes:
        prompts: texts of the clips.
        seeds: seeds; a clip's own seed derives from one of them and the photo's key.
        batch_size: clips made together.
    """

    prompts: list[str] = field(default_factory=lambda: ["a person is talking"])
    seeds: list[int] = field(default_factory=lambda: [0])
    batch_size: int = 4

    def __post_init__(self) -> None:
        """Refuse an empty plan."""
        check_at_least(self.batch_size, 1, "batch_size")
        if not self.prompts or not self.seeds:
            raise ValueError(f"expected prompts and seeds, got {self.prompts} and {self.seeds}")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        results: one per clip.
        missing: protection -> keys of photos without a protected file.
    """

    results: tuple[Result, ...]
    missing: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One clip to be made."""

    key: str
    prompt: str
    seed: int
    identity: str
    clip_name: str


class Evaluator:
    """Judges protections of one list of photos with one generator.

    Args:
        photos: the clean photos.
        generator: the attacker's model.
        generator_identity: plain data that changes whenever its clips would (model, steps ...).
        judge: takes the figures.
        purifications: name -> what happens to a file first; "none" -> None for nothing.
        purification_identities: name -> plain data that changes whenever what it does would
            (settings, severity, weight files).
        trials: prompts, seeds, batch size.
        store: keeps what is done.
        reading: limits on input files.
        listener: told in a sentence what is being done.
    """

    def __init__(
        self,
        *,
        photos: Sequence[SourceFile],
        generator: VideoGenerator,
        generator_identity: Mapping[str, object],
        judge: Judge,
        purifications: Mapping[str, Purification | None],
        purification_identities: Mapping[str, object],
        trials: Trials,
        store: ResultStore,
        reading: ReadingConfig | None = None,
        listener: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.photos = {photo.key: photo for photo in photos}
        self.generator, self.judge = generator, judge
        self.purifications, self.trials = dict(purifications), trials
        self.store, self.reading = store, reading or ReadingConfig()
        self.listener = listener
        self._framing = Framing(FramingConfig())
        self._circumstances = digest(
            [_VERSION, generator_identity, list(generator.view_size), judge.parts]
        )
        if set(purification_identities) != set(self.purifications):
            raise ValueError(
                f"purification_identities: expected one of each of {sorted(self.purifications)}, "
                f"got {sorted(purification_identities)}"
            )
        self._made_by = {n: digest([n, what]) for n, what in purification_identities.items()}
        self._digests: dict[Path, str] = {}
        self._known: dict[str, KnownPhoto] = {}
        self._faces: dict[str, tuple[Face, ...]] = {}
        self._moved: dict[tuple[str, str], tuple[Face, ...]] = {}

    def run(self, protections: Mapping[str, Path]) -> Evaluation:
        """Judge the clean photos and every protected folder.

        Args:
            protections: name -> folder, in the order of the tables; "clean" is added.

        Raises:
            ValueError: a folder without any protected file, or a name that is taken.
            PhotoFailure: a photo or protected file that cannot be read.
        """
        if CLEAN in protections:
            raise ValueError(f"{CLEAN!r} is the photos themselves; name the folder otherwise")
        files = {CLEAN: {key: photo.path for key, photo in self.photos.items()}}
        missing: dict[str, tuple[str, ...]] = {}
        for name, folder in protections.items():
            pairing = pair(list(self.photos.values()), folder)
            files[name], missing[name] = pairing.found, pairing.missing
        results: list[Result] = []
        for purification, (name, found) in itertools.product(self.purifications, files.items()):
            results += self._evaluate(name, purification, found)
        return Evaluation(results=tuple(results), missing=missing)

    def _evaluate(
        self, protection: str, purification: str, files: Mapping[str, Path]
    ) -> list[Result]:
        tasks = [t for key in files for t in self._tasks(key, files[key], purification)]
        pending = [t for t in tasks if self._pending(t, protection)]
        if pending:
            self.listener(f"{protection}, purification {purification}: {len(pending)} clips")
        views: dict[str, Tensor] = {}
        fixed: dict[str, dict[str, float]] = {}
        for batch in _batches(pending, self.trials.batch_size):
            for key in {task.key for task in batch} - set(views):
                views[key], fixed[key] = self._look(key, files[key], purification)
            self._judge_batch(batch, protection, purification, views, fixed)
        found = [self.store.find(_identity(task, protection)) for task in tasks]
        return [result for result in found if result is not None]

    def _tasks(self, key: str, path: Path, purification: str) -> Iterator[_Task]:
        clean_sha = self._sha256(self.photos[key].path)
        for prompt, seed in itertools.product(self.trials.prompts, self.trials.seeds):
            made_by = self._made_by[purification]
            circumstances = [self._circumstances, key, clean_sha, made_by, prompt, seed]
            yield _Task(
                key=key,
                prompt=prompt,
                seed=seed,
                identity=digest([*circumstances, self._sha256(path)]),
                clip_name=digest(circumstances),
            )

    def _pending(self, task: _Task, protection: str) -> bool:
        if self.store.find(_identity(task, protection)) is None:
            return True
        return protection == CLEAN and self.store.load_clip(task.clip_name) is None

    def _look(self, key: str, path: Path, purification: str) -> tuple[Tensor, dict[str, float]]:
        """The view that the generator gets, and the figures that do not depend on the clip."""
        clean = read_photo(self.photos[key], self.reading).srgb()
        known = self._know(key, clean)
        protected = clean
        if path != self.photos[key].path:
            protected = read_photo(SourceFile(key=path.name, path=path), self.reading).srgb()
        _check_aspect(key, clean, protected)
        figures = judge_file(clean, protected)
        faces = self._faces_after(key, clean, purification)
        view = self._view(self._purified(key, protected, purification), faces)
        return view, {**figures, **self.judge.judge_latents(known, view)}

    def _know(self, key: str, clean: Tensor) -> KnownPhoto:
        if key not in self._known:
            self._faces[key] = tuple(self.judge.detector.detect(clean))
            faces = self._faces[key]
            self._known[key] = self.judge.know(clean, self._view(clean, faces), faces)
        return self._known[key]

    def _faces_after(self, key: str, clean: Tensor, purification: str) -> tuple[Face, ...]:
        """The clean photo's faces after a purification: it and its cloak are cut alike."""
        if (key, purification) not in self._moved:
            after = self._purified(key, clean, purification)
            found = faces_after(clean, after, self._faces[key], self.judge.detector)
            self._moved[key, purification] = found
        return self._moved[key, purification]

    def _view(self, photo: Tensor, faces: tuple[Face, ...]) -> Tensor:
        """The largest crop that holds the face, as everybody's pipeline would take it."""
        size = (photo.shape[-2], photo.shape[-1])
        view = self._framing.main_view(size, self.generator.view_size, faces)
        shown = self._framing.render(photo[None], view, self.generator.view_size)[0]
        return shown.clamp(0.0, 1.0)

    def _purified(self, key: str, photo: Tensor, name: str) -> Tensor:
        purification = self.purifications[name]
        if purification is None:
            return photo
        generator = generator_for(0, key, 0, f"purification {name}")
        box = self._faces[key][0].box if self._faces[key] else None
        with torch.no_grad():
            return purification.purify(photo[None], SEVERITY, generator, faces=[box])[0]

    def _judge_batch(
        self,
        batch: Sequence[_Task],
        protection: str,
        purification: str,
        views: Mapping[str, Tensor],
        fixed: Mapping[str, Mapping[str, float]],
    ) -> None:
        clips = self.generator.generate(
            torch.stack([views[t.key] for t in batch]),
            [t.prompt for t in batch],
            [derived_seed(t.seed, t.key, 0, "clip") for t in batch],
        )
        results = []
        for task, made in zip(batch, clips, strict=True):
            clip = (made * 255).round() / 255  # a clip is a file of 8-bit frames
            if protection == CLEAN:
                self.store.save_clip(task.clip_name, clip)
            reference = self.store.load_clip(task.clip_name)
            assert reference is not None, "clean photos are judged first"
            figures = self.judge.judge_clip(self._known[task.key], clip, reference)
            if protection == CLEAN:
                figures.update(dict.fromkeys(_TO_CLEAN_CLIP, math.nan))
            results.append(
                Result(
                    photo=task.key,
                    protection=protection,
                    purification=purification,
                    prompt=task.prompt,
                    seed=task.seed,
                    identity=_identity(task, protection),
                    figures={**figures, **fixed[task.key]},
                )
            )
        self.store.append(results)

    def _sha256(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[path]


def _identity(task: _Task, protection: str) -> str:
    return digest([task.identity, protection])


def _batches(tasks: Sequence[_Task], size: int) -> Iterator[Sequence[_Task]]:
    return (tasks[i : i + size] for i in range(0, len(tasks), size))


def _check_aspect(key: str, clean: Tensor, protected: Tensor) -> None:
    shapes = [tuple(image.shape[-2:]) for image in (clean, protected)]
    ratio = (shapes[0][0] * shapes[1][1]) / (shapes[0][1] * shapes[1][0])
    if abs(ratio - 1) > _ASPECT_TOLERANCE:
        raise ValueError(
            f"{key}: the protected file has {shapes[1]} pixels and the photo {shapes[0]}; expected "
            "the same proportions, since both are framed alike. Protect the whole photo"
        )
