"""Looks at a photo and its protected files once, and keeps what it saw."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.further import Further
from anti_i2v_lit.evaluation.inspection import Inspected, Subject, framed, inspect
from anti_i2v_lit.evaluation.judge import Judge, pixel_landmarks
from anti_i2v_lit.evaluation.matching import Matched
from anti_i2v_lit.evaluation.plan import Plan
from anti_i2v_lit.evaluation.records import PhotoRecord, RecordStore
from anti_i2v_lit.metrics.base import CloakedPhoto


class Surveyor:
    """Makes the records of photos.

    Args:
        plan: what is evaluated.
        records: where they are kept.
        judge: for faces, people and LPIPS.
        further: metrics of files.
    """

    def __init__(self, plan: Plan, records: RecordStore, judge: Judge, further: Further) -> None:
        self._plan, self._records, self._judge, self._further = plan, records, judge, further
        self._people: dict[str, dict[str, Tensor] | None] = {}

    def record(self, key: str) -> PhotoRecord:
        """The record of a photo, made now if it is not there; unreadable files are problems."""
        identity = self._plan.record_identity(key)
        known = self._records.find(identity)
        if known is None:
            known = self._looked_at(key, identity)
            self._records.append(known)
        return known

    def other_people(self, key: str) -> list[dict[str, Tensor]]:
        """Embeddings of other photos' faces, evenly spaced by name, at most as many as set.

        A photo that may show the same person is no stranger: where its cosine to this photo
        reaches the network's fixed threshold, its vectors are NaN, and so is all that is compared
        with them. Strangers that look alike are dropped with it, which makes the calibrated
        threshold lower, never higher. All are NaN where no face is found in this photo.
        """
        keys = [other for other in self._plan.photos if other != key]
        count = min(len(keys), self._plan.settings.identity.others)
        chosen = [keys[i * len(keys) // count] for i in range(count)] if count else []
        found = [self._person(other) for other in chosen]
        own, cuts = self._person(key), self._plan.settings.identity.fallback
        return [
            _undefined(person) if own is None or _is_same(own, person, cuts) else person
            for person in found
            if person is not None
        ]

    @torch.no_grad()
    def _person(self, key: str) -> dict[str, Tensor] | None:
        if key not in self._people:
            self._people[key] = None
            try:
                photo = self._plan.read(self._plan.photos[key])
            except (ValueError, OSError):
                return None
            faces = self._judge.detector.detect(photo)
            if faces:
                points = pixel_landmarks(faces[0], photo)
                vectors = {n: e.embed(photo, points) for n, e in self._judge.embedders.items()}
                self._people[key] = vectors
        return self._people[key]

    def _looked_at(self, key: str, identity: str) -> PhotoRecord:
        plan, source = self._plan, self._plan.photos[key]
        record = PhotoRecord(
            identity=identity,
            key=key,
            path=str(source.path),
            sha256=plan.digests.of(source),
            size=(0, 0),
            has_face=False,
            files=(),
            cloaks=(),
            problems=(),
        )
        try:
            photo = plan.read(source)
        except (ValueError, OSError) as error:
            problem = Problem(kind="unreadable", protection="", photo=key, reason=str(error))
            return replace(record, problems=(problem,))
        found = {
            matched.name: self._inspected(key, photo, matched)
            for matched in plan.protections
            if key in matched.pairs
        }
        return replace(
            record,
            size=(photo.shape[-2], photo.shape[-1]),
            has_face=bool(self._judge.detector.detect(photo)),
            files=tuple(i.file for i in found.values() if i.file is not None),
            cloaks=tuple(name for name, i in found.items() if i.is_cloak),
            problems=tuple(problem for i in found.values() for problem in i.problems),
        )

    def _inspected(self, key: str, photo: Tensor, matched: Matched) -> Inspected:
        pair, plan = matched.pairs[key], self._plan
        try:
            protected = plan.read(pair.file)
        except (ValueError, OSError) as error:
            reason = f"{pair.file.key}: {error}"
            problem = Problem(kind="unreadable", protection=matched.name, photo=key, reason=reason)
            return Inspected(file=None, problems=(problem,), is_cloak=False)
        subject = Subject(
            protection=matched.name,
            pair=pair,
            photo=photo,
            protected=protected,
            photo_sha256=plan.digests.of(pair.photo),
            file_sha256=plan.digests.of(pair.file),
            owners=matched.owners,
            others={
                other: functools.partial(plan.read, source)
                for other, source in plan.photos.items()
                if other != key
            },
        )
        inspected = inspect(subject, self._judge.lpips)
        if inspected.file is None or not self._further.of_files:
            return inspected
        reference = framed(photo, inspected.file.frame, protected)
        cloaked = CloakedPhoto(key=key, photo=reference, cloak=protected)
        figures = {**inspected.file.figures, **self._further.judge_file(cloaked)}
        return replace(inspected, file=replace(inspected.file, figures=figures))


def _is_same(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], cuts: Mapping[str, float]
) -> bool:
    """Whether two faces may be one person's, for any network with a fixed threshold."""
    return any(float(one[name] @ other[name]) >= cuts[name] for name in one if name in cuts)


def _undefined(person: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.full_like(vector, torch.nan) for name, vector in person.items()}
