"""What is to be evaluated: photos, their protected files, and every clip that has to be made."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.config import digest
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.reading import read_photo
from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.gauntlet import Entry
from anti_i2v_lit.evaluation.knowledge import with_statements
from anti_i2v_lit.evaluation.matching import Matched, has_manifest, match
from anti_i2v_lit.evaluation.model_files import rows_digest
from anti_i2v_lit.evaluation.places import clean_photos
from anti_i2v_lit.evaluation.records import Digests, PhotoRecord
from anti_i2v_lit.evaluation.settings import EvaluationSettings, labelled

CLEAN = "clean"
NOISE = "noise like "
VERSION = 5  # raise it when a figure's definition changes, so that kept results are not reused
RECORD_VERSION = 5  # the same of what is known of a photo


@dataclass(frozen=True, kw_only=True)
class Task:
    """One clip to be made and judged.

    Attributes:
        key: of the photo.
        generator: label.
        protection: "clean", the name of a protection, or the noise like one.
        like: the protection itself, also for its noise; "" for clean photos.
        counterpart: name of the clean photo framed like the file.
        entry: what is done to the file first.
        prompt: text.
        seed: seed.
        identity: digest of all that the figures depend on.
        clip_name: name of the clip, if it is kept.
        clean_name: name of the clean counterpart's clip.
    """

    key: str
    generator: str
    protection: str
    like: str
    counterpart: str
    entry: Entry
    prompt: str
    seed: int
    identity: str
    clip_name: str
    clean_name: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An evaluation before anything is done.

    Attributes:
        settings: of the evaluation.
        photos: key -> clean photo, sorted.
        unreadable: clean photos whose names cannot be followed.
        protections: in the order of the command line.
        entries: the gauntlet.
        generators: label -> {name, <fields>}.
        circumstances: label -> digest of the model and of all settings that change its rows.
        entry_identities: label of an entry -> digest of its settings and weight files.
        digests: SHA-256 of files.
    """

    settings: EvaluationSettings
    photos: Mapping[str, SourceFile]
    unreadable: tuple[Problem, ...]
    protections: tuple[Matched, ...]
    entries: tuple[Entry, ...]
    generators: Mapping[str, Mapping[str, Any]]
    circumstances: Mapping[str, str]
    entry_identities: Mapping[str, str]
    digests: Digests

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the folders."""
        own = (p for matched in self.protections for p in matched.problems)
        return (*self.unreadable, *own)

    def read(self, source: SourceFile) -> Tensor:
        """Pixels [3, H, W] in [0, 1].

        Raises:
            PhotoFailure: with the reason.
        """
        return read_photo(source, self.settings.reading).srgb()

    def calibrates(self, task: Task) -> bool:
        """Whether identity thresholds are found on a clip: the gauntlet's first clean ones."""
        return task.protection == CLEAN and task.entry == self.entries[0]

    def record_identity(self, key: str) -> str:
        """Digest of what a photo's record depends on; what it may lack is no part of it."""
        pairs = {m.name: m.pairs[key] for m in self.protections if key in m.pairs}
        files = {name: [self.digests.of(p.file), p.how] for name, p in pairs.items()}
        claims = {name: p.row.psnr for name, p in pairs.items() if p.row is not None}
        photo = self.digests.of(self.photos[key])
        faces = vars(self.settings.faces)
        return digest([RECORD_VERSION, key, photo, files, repr(claims), faces])

    def tasks(self, record: PhotoRecord, generator: str) -> Iterator[Task]:
        """Every clip of a photo by one generator: clean ones before those compared with them."""
        seeds, noisy = self.settings.seeds, self.settings.seeds[: self.settings.noise.seeds]
        frames = {name: record.file(name).counterpart for name in record.cloaks}
        for entry, prompt in itertools.product(self.entries, self.settings.prompts):
            for frame, seed in itertools.product(dict.fromkeys(frames.values()), seeds):
                yield self._task(record, generator, CLEAN, "", frame, entry, prompt, seed)
            for name, seed in itertools.product(record.cloaks, seeds):
                yield self._task(record, generator, name, name, frames[name], entry, prompt, seed)
            for name, seed in itertools.product(record.cloaks, noisy):
                noise = NOISE + name
                yield self._task(record, generator, noise, name, frames[name], entry, prompt, seed)

    def _task(
        self,
        record: PhotoRecord,
        generator: str,
        protection: str,
        like: str,
        counterpart: str,
        entry: Entry,
        prompt: str,
        seed: int,
    ) -> Task:
        photo = [record.key, record.sha256, counterpart]
        facts = [
            self.circumstances[generator],
            *photo,
            entry.label,
            self.entry_identities[entry.label],
            prompt,
            seed,
        ]
        clean = digest([*facts, CLEAN])
        own = clean
        if protection != CLEAN:
            own = digest([*facts, protection, record.file(like).sha256])
        return Task(
            key=record.key,
            generator=generator,
            protection=protection,
            like=like,
            counterpart=counterpart,
            entry=entry,
            prompt=prompt,
            seed=seed,
            identity=own,
            clip_name=own,
            clean_name=clean,
        )


def make_plan(
    settings: EvaluationSettings,
    *,
    clean: Path,
    cloaked: Mapping[str, Path],
    out: Path,
    pairs: Mapping[str, Path] | None = None,
    parts: object = None,
) -> Plan:
    """Find the photos and their protected files.

    Args:
        settings: of the evaluation.
        clean: folder of the clean photos, of shards, or a manifest.
        cloaked: name -> folder of protected photos.
        out: folder of the evaluation.
        pairs: name of a protection -> CSV of its pairs, for folders without a manifest; "" for
            the only such folder.
        parts: what the judge consists of, as plain data; part of every row's identity.

    Raises:
        ValueError: nothing found, or a name that is taken.
    """
    _check_names(cloaked)
    found, digests = clean_photos(clean, out), Digests()
    photos = {source.key: source for source in found.sources}

    def read(source: SourceFile) -> Tensor:
        return read_photo(source, settings.reading).srgb()

    sources, sha = found.sources, digests.of
    listed = pairs_of(cloaked, pairs or {})
    matched = tuple(
        match(name, place, sources, out=out, read=read, sha256=sha, pairs_file=listed.get(name))
        for name, place in cloaked.items()
    )
    nodes = map(generator_node(settings), settings.generators)
    generators = {node["label"]: node for node in nodes}
    chosen = settings.purifications()
    return Plan(
        settings=settings,
        photos=photos,
        unreadable=tuple(found.problems("", photos)),
        protections=with_statements(matched, settings.surrogates, generators),
        entries=chosen,
        entry_identities={entry.label: digest(entry.identity) for entry in chosen},
        generators=generators,
        circumstances=_circumstances(settings, generators, parts),
        digests=digests,
    )


def pairs_of(cloaked: Mapping[str, Path], pairs: Mapping[str, Path]) -> dict[str, Path]:
    """Name of a protection -> CSV of its pairs; warns of those that a manifest makes useless.

    Args:
        cloaked: name -> folder of protected photos.
        pairs: name -> CSV; "" for the only folder without a manifest.

    Raises:
        ValueError: an unknown name, or a CSV without a name where several folders could be meant.
    """
    found = dict(pairs)
    unnamed = found.pop("", None)
    if unnamed is not None:
        foreign = [name for name, place in cloaked.items() if not has_manifest(place)]
        meant = [name for name in foreign or cloaked if name not in found]
        if len(meant) != 1:
            raise ValueError(
                f"--pairs {unnamed}: it could belong to {' or '.join(meant) or 'no folder'}; "
                f"say which with --pairs NAME={unnamed}"
            )
        found[meant[0]] = unnamed
    for name in found:
        check_in(name, cloaked, "name before = in --pairs")
        if has_manifest(cloaked[name]):
            warnings.warn(
                f"--pairs {found[name]} is ignored for {name}: its manifest says the pairs",
                stacklevel=2,
            )
    return found


def _check_names(cloaked: Mapping[str, Path]) -> None:
    if not cloaked:
        raise ValueError("--cloaked: expected at least one folder of protected photos")
    for name in cloaked:
        if name == CLEAN or name.startswith(NOISE) or not name:
            raise ValueError(f"--cloaked {name!r}=DIR: this name means something else, choose one")


def _circumstances(
    settings: EvaluationSettings, generators: Mapping[str, Mapping[str, Any]], parts: object
) -> dict[str, str]:
    """Label -> digest of all that changes a generator's rows, files of the model included."""
    common = [VERSION, parts, settings.long_clip_chains]
    common += [vars(settings.framing), vars(settings.faces)]
    return {
        label: digest([*common, _without(node, "label", "device"), _digest_of(node)])
        for label, node in generators.items()
    }


def generator_node(settings: EvaluationSettings) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """How a generator's node of the settings becomes one with its label and steps."""

    def complete(node: Mapping[str, Any]) -> dict[str, Any]:
        steps = {"num_inference_steps": settings.sampling_steps} if settings.sampling_steps else {}
        return labelled({**steps, **node})

    return complete


def _without(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in names}


def _digest_of(node: Mapping[str, Any]) -> str:
    return rows_digest(str(node["name"]), str(node.get("path", "")))
