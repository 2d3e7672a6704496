"""What the folder of an evaluation holds for a plan: records and rows, whoever made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from anti_i2v_lit.evaluation.calibration import OTHERS
from anti_i2v_lit.evaluation.inspection import like_originals
from anti_i2v_lit.evaluation.plan import CLEAN, Plan
from anti_i2v_lit.evaluation.records import PhotoRecord, RecordStore
from anti_i2v_lit.evaluation.store import Result, ResultStore
from anti_i2v_lit.evaluation.strangers import Strangers


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that was found for a plan.

    Attributes:
        records: key -> record; photos that were not looked at yet have none.
        results: every row of the plan that is there.
        num_missing: rows that are not there.
    """

    records: Mapping[str, PhotoRecord]
    results: tuple[Result, ...]
    num_missing: int


def gather(plan: Plan, store: ResultStore, records: RecordStore) -> Found:
    """The rows of a plan, in the plan's order, whoever made them.

    A row says what made it by its identity, which knows the model and not its label: rows bear the
    label of this plan, and those of one model under two labels are there twice.
    """
    looked_at = {key: records.find(plan.record_identity(key)) for key in plan.photos}
    known = {k: _of_today(record, plan) for k, record in looked_at.items() if record is not None}
    known = _without_swapped(known, plan)
    results, lacking = [], len(looked_at) - len(known)
    for record in known.values():
        for label in plan.generators:
            rows = [store.find(task.identity) for task in plan.tasks(record, label)]
            made = (row for row in rows if row is not None)
            results += [dataclasses.replace(row, generator=label) for row in made]
            lacking += sum(row is None for row in rows)
    return Found(
        records=known,
        results=tuple(_beside_strangers(results, plan, known)),
        num_missing=lacking,
    )


def _of_today(record: PhotoRecord, plan: Plan) -> PhotoRecord:
    """A record with the paths of this plan, absolute: folders may have moved since it was made."""
    pairs = {m.name: m.pairs[record.key] for m in plan.protections if record.key in m.pairs}
    return dataclasses.replace(
        record,
        path=str(plan.photos[record.key].path.absolute()),
        files=tuple(
            dataclasses.replace(file, path=str(pairs[file.protection].file.path.absolute()))
            for file in record.files
        ),
    )


def _without_swapped(records: Mapping[str, PhotoRecord], plan: Plan) -> dict[str, PhotoRecord]:
    """Records in which originals in the place of cloaks, that no manifest tells of, are none.

    Files that only look like originals stay cloaks, with a problem.
    """
    found = dict(records)
    for matched in plan.protections:
        changes = {
            key: record.file(matched.name).coarse_rms_8bit
            for key, record in records.items()
            if matched.name in record.cloaks and matched.pairs[key].row is None
        }
        for problem in like_originals(matched.name, changes):
            record = found[problem.photo]
            found[problem.photo] = dataclasses.replace(
                record,
                cloaks=tuple(
                    name
                    for name in record.cloaks
                    if name != matched.name or problem.kind != "swapped"
                ),
                problems=(*record.problems, problem),
            )
    return found


def _beside_strangers(
    results: Sequence[Result], plan: Plan, records: Mapping[str, PhotoRecord]
) -> Iterator[Result]:
    """Rows with likeness to other people where thresholds are found, as this plan has them."""
    people = {key: records[key].person if key in records else {} for key in plan.photos}
    strangers = Strangers(people, plan.settings.identity)
    for row in results:
        if row.protection != CLEAN or row.purification != plan.entries[0].label:
            yield row
            continue
        similar = strangers.similarities(row.photo, row.faces)
        others = {OTHERS + network: values for network, values in similar.items()}
        yield dataclasses.replace(row, by_frame={**row.by_frame, **others})
