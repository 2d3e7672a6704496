"""Looks at a photo and its protected files once, and keeps what it saw."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.evaluation.facts import UNREADABLE, Problem
from anti_i2v_lit.evaluation.further import Further
from anti_i2v_lit.evaluation.inspection import Inspected, Subject, framed, inspect
from anti_i2v_lit.evaluation.judge import Judge, pixel_landmarks
from anti_i2v_lit.evaluation.matching import Matched
from anti_i2v_lit.evaluation.plan import Plan
from anti_i2v_lit.evaluation.records import FileFigure, PhotoRecord, RecordStore
from anti_i2v_lit.evaluation.strangers import packed
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

    def known(self, key: str) -> PhotoRecord | None:
        """The record of a photo, if nothing is left to be looked at; decodes nothing."""
        record = self._records.find(self._plan.record_identity(key))
        if record is None or self._unseen_by(record):
            return None
        return None if record.lacks(self._further.file_settings) else record

    def record(self, key: str) -> PhotoRecord:
        """The record of a photo, made now if it is not there; unreadable files are problems.

        Of a record that is there, only what it lacks is made: a face's vector by a network that
        was not at hand, and figures of further metrics that were not asked for.

        Raises:
            PhotoFailure: a file that could be read before cannot be read now.
        """
        identity = self._plan.record_identity(key)
        found = self._records.find(identity)
        made = found if found is not None else self._looked_at(key, identity)
        if made.size != (0, 0):
            made = self._completed(made)
        if made is not found:
            self._records.append(made)
        return made

    def _unseen_by(self, record: PhotoRecord) -> list[str]:
        """Face networks that have not looked at a photo with a face, with the weights of now."""
        if not record.has_face:
            return []
        return [name for name, kept in self._judge.networks.items() if kept not in record.person]

    def _completed(self, record: PhotoRecord) -> PhotoRecord:
        lacking = record.lacks(self._further.file_settings)
        unseen_by = self._unseen_by(record)
        if not lacking and not unseen_by:
            return record
        photo = self._plan.read(self._plan.photos[record.key])
        if unseen_by:
            added_vectors = self._person(photo, self._judge.detector.detect(photo), unseen_by)
            record = replace(record, person={**record.person, **added_vectors})
        added: list[FileFigure] = []
        for file in record.files:
            names = [name for protection, name in lacking if protection == file.protection]
            if names:
                added += self._figures(record, photo, file.protection, names)
        return record.with_figures(added)

    @torch.no_grad()
    def _person(self, photo: Tensor, faces: Sequence[Face], names: Iterable[str]) -> dict[str, str]:
        """Face network with its digest -> packed vector of the main face; "" without one."""
        networks, embedders = self._judge.networks, self._judge.embedders
        if not faces:
            return {networks[name]: "" for name in names}
        points = pixel_landmarks(faces[0], photo)
        return {networks[n]: packed(embedders[n].embed(photo, points)) for n in names}

    def _figures(
        self, record: PhotoRecord, photo: Tensor, protection: str, names: Sequence[str]
    ) -> list[FileFigure]:
        matched = next(m for m in self._plan.protections if m.name == protection)
        protected = self._plan.read(matched.pairs[record.key].file)
        reference = framed(photo, record.file(protection).frame, protected)
        values = self._further.judge_file(
            CloakedPhoto(key=record.key, photo=reference, cloak=protected), names
        )
        settings = self._further.file_settings
        return [
            FileFigure(protection=protection, name=name, settings=settings[name], value=value)
            for name, value in values.items()
        ]

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
            problem = Problem(kind=UNREADABLE, protection="", photo=key, reason=str(error))
            return replace(record, problems=(problem,))
        found = {
            matched.name: self._inspected(key, photo, matched)
            for matched in plan.protections
            if key in matched.pairs
        }
        faces = self._judge.detector.detect(photo)
        return replace(
            record,
            size=(photo.shape[-2], photo.shape[-1]),
            has_face=bool(faces),
            person=self._person(photo, faces, self._judge.networks),
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
            problem = Problem(kind=UNREADABLE, protection=matched.name, photo=key, reason=reason)
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
        return inspect(subject, self._judge.lpips)
