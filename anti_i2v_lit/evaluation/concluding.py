"""From rows to an `Outcome`: facts, verdicts, headline, and the files beside it."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from anti_i2v_lit.evaluation.clip_sets import compare_sets
from anti_i2v_lit.evaluation.columns import GROUPS
from anti_i2v_lit.evaluation.facts import (
    KNOWLEDGE,
    AbsentMetric,
    ColumnFacts,
    GeneratorFacts,
    KeptClip,
    PhotoFacts,
    Problem,
    ProtectionFacts,
    Verdict,
)
from anti_i2v_lit.evaluation.further import Further
from anti_i2v_lit.evaluation.gathering import Found
from anti_i2v_lit.evaluation.knowledge import known_pairs, white_box_of
from anti_i2v_lit.evaluation.matching import Matched
from anti_i2v_lit.evaluation.model_files import rows_digest
from anti_i2v_lit.evaluation.outcome import HeatCell, Outcome, WorstCase
from anti_i2v_lit.evaluation.plan import NOISE, Plan
from anti_i2v_lit.evaluation.records import PhotoRecord
from anti_i2v_lit.evaluation.store import Result, ResultStore
from anti_i2v_lit.evaluation.summary import Summary
from anti_i2v_lit.evaluation.trials import Trials
from anti_i2v_lit.evaluation.verdicts import overall, refused
from anti_i2v_lit.evaluation.wording import definition, headline, versions
from anti_i2v_lit.evaluation.workbench import kept_tasks
from anti_i2v_lit.exit_codes import EXIT_DONE, EXIT_INTERRUPTED, EXIT_PROBLEMS


def conclude(
    plan: Plan,
    found: Found,
    *,
    further: Further,
    failures: Sequence[Problem],
    clips: ResultStore,
    unfinished: bool,
    elsewhere: int = 0,
) -> Outcome:
    """Everything that can be said about a plan's rows.

    Args:
        plan: what was evaluated.
        found: its rows.
        further: the further metrics that ran.
        failures: photos that could not be evaluated.
        clips: where clips are kept.
        unfinished: whether another run would make missing rows, or is making them.
        elsewhere: units that another run is working on, where those are all that is missing.
    """
    known = known_pairs(plan.protections, plan.generators)
    lengths, labels = _lengths(found.results), _ordered(plan, known)
    summary = _summarised(plan, found.results, labels, known, lengths)
    problems = _problems(plan, found, failures, unfinished)
    sets, unset = compare_sets(plan, found.results, further, clips)
    code = EXIT_PROBLEMS if any(p.fails for p in problems) else EXIT_DONE
    outcome = Outcome(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        complete=found.num_missing == 0 and not unfinished,
        exit_code=EXIT_INTERRUPTED if unfinished else code,
        elsewhere=elsewhere,
        definition=definition(plan, summary.thresholds),
        columns=_columns(found.results, further),
        photos=tuple(_photo(plan, r, summary, labels, further) for r in found.records.values()),
        set_figures=sets,
        absent=(*further.absent, *unset, *_undefined(found.results, further)),
        problems=problems,
        protections=_protections(plan, found, problems),
        **_setting(plan),
        **_models(plan, labels, lengths, _kept(plan, found, clips), clips.folder.parent),
        **_tables(summary),
    )
    return dataclasses.replace(outcome, headline=headline(outcome))


def _summarised(
    plan: Plan,
    results: Sequence[Result],
    labels: Sequence[str],
    known: Mapping[tuple[str, str], str],
    lengths: Mapping[str, int],
) -> Summary:
    links = plan.settings.long_clip_chains + 1
    return Summary(
        Trials(results),
        plan.settings,
        generators=labels,
        protections=[matched.name for matched in plan.protections],
        knowledge=known,
        link_length={g: n // links for g, n in lengths.items()},
    )


def _ordered(plan: Plan, known: Mapping[tuple[str, str], str]) -> list[str]:
    """Labels of the generators, held-out ones first, else as they are asked for."""

    def place(label: str) -> int:
        return sum(KNOWLEDGE.index(known[label, m.name]) for m in plan.protections)

    return sorted(plan.generators, key=place)


def _undefined(results: Sequence[Result], further: Further) -> list[AbsentMetric]:
    """Metrics that were taken and have no value for any clip."""
    reason = "undefined for every clip here: frames too small, clips too short, or no face"
    return [
        AbsentMetric(name=name, reason=reason)
        for name in further.of_clips
        if results and all(math.isnan(r.figures.get(name, math.nan)) for r in results)
    ]


def _problems(
    plan: Plan, found: Found, failures: Sequence[Problem], unfinished: bool
) -> tuple[Problem, ...]:
    seen = (problem for record in found.records.values() for problem in record.problems)
    without = () if unfinished else _without_result(plan, found.results)
    return (*plan.problems, *seen, *failures, *without)


def _without_result(plan: Plan, results: Sequence[Result]) -> Iterator[Problem]:
    """Pairs of a generator and a protection of which not one clip was judged."""
    judged = {(result.generator, result.protection) for result in results}
    for label, matched in itertools.product(plan.generators, plan.protections):
        if (label, matched.name) not in judged:
            yield Problem(
                kind="failed",
                protection=matched.name,
                photo="",
                reason=f"not one clip of it by generator {label} was judged",
            )


def _protections(
    plan: Plan, found: Found, problems: Sequence[Problem]
) -> tuple[ProtectionFacts, ...]:
    records = list(found.records.values())
    return tuple(
        _protection(m, white_box_of(m, plan.generators), records, problems)
        for m in plan.protections
    )


def _setting(plan: Plan) -> dict[str, Any]:
    """What was asked for."""
    return {
        "settings": plan.settings.plain(),
        "versions": versions(),
        "prompts": tuple(plan.settings.prompts),
        "seeds": tuple(plan.settings.seeds),
        "purifications": tuple(entry.facts() for entry in plan.entries),
    }


def _models(
    plan: Plan,
    labels: Sequence[str],
    lengths: Mapping[str, int],
    kept: Sequence[KeptClip],
    folder: Path,
) -> dict[str, Any]:
    sizes = {clip.generator: _view_size(folder / clip.path) for clip in kept}
    return {
        "clips": tuple(kept),
        "generators": tuple(
            _generator(plan, label, sizes.get(label, (0, 0)), lengths.get(label, 0))
            for label in labels
        ),
    }


def _tables(summary: Summary) -> dict[str, Any]:
    """What was measured, held-out generators first, white-box ones last."""
    return {
        "thresholds": tuple(summary.thresholds),
        "noise_limits": tuple(summary.limits),
        "alike": summary.alike(),
        "summary": tuple(summary.rows()),
        "worst": tuple(sorted(summary.worst(), key=_by_knowledge)),
        "heat": tuple(sorted(summary.heat(), key=_by_knowledge)),
        "curves": tuple(summary.curves()),
    }


def _by_knowledge(part: WorstCase | HeatCell) -> int:
    return KNOWLEDGE.index(part.knowledge)


def _lengths(results: Sequence[Result]) -> dict[str, int]:
    found: dict[str, int] = {}
    for result in results:
        frames = len(result.by_frame.get("motion", ()))
        found[result.generator] = max(found.get(result.generator, 0), frames)
    return found


def _generator(plan: Plan, label: str, size: tuple[int, int], frames: int) -> GeneratorFacts:
    node = dict(plan.generators[label])
    path = str(node.get("path", ""))
    return GeneratorFacts(
        label=label,
        name=str(node["name"]),
        path=path,
        model_sha256=rows_digest(str(node["name"]), path),
        view_size=size,
        num_frames=frames,
        settings={name: value for name, value in node.items() if name != "label"},
    )


def _protection(
    matched: Matched,
    white_box: tuple[str, ...],
    records: Sequence[PhotoRecord],
    problems: Sequence[Problem],
) -> ProtectionFacts:
    own = [p for p in problems if p.protection == matched.name]
    failed = {p.photo for p in own if p.fails and p.photo and p.kind != "missing"}
    return ProtectionFacts(
        name=matched.name,
        folder=str(matched.folder),
        source=matched.source,
        surrogates=matched.surrogates,
        told_by=matched.told_by,
        white_box=white_box,
        noise=NOISE + matched.name,
        num_pairs=sum(matched.name in record.cloaks for record in records),
        num_missing=sum(p.kind == "missing" for p in own),
        num_failed=len(failed),
    )


def _columns(results: Sequence[Result], further: Further) -> tuple[ColumnFacts, ...]:
    seen = {column for result in results for column in result.figures}
    found = []
    for group, columns in GROUPS.items():
        for column in columns:
            title, _, unit = column.title.partition(" (")
            if column.name in seen or group.startswith("Visibility"):
                found.append(
                    ColumnFacts(
                        name=column.name,
                        title=title,
                        unit=unit.rstrip(")"),
                        better=column.better,
                        digits=column.digits,
                        group=group,
                    )
                )
    return (*found, *further.columns())


def _photo(
    plan: Plan,
    record: PhotoRecord,
    summary: Summary,
    labels: Sequence[str],
    further: Further,
) -> PhotoFacts:
    entries = [entry.label for entry in plan.entries]
    verdicts: list[Verdict] = []
    single: list[Verdict] = []
    for matched in plan.protections:
        name = matched.name
        if name not in record.cloaks:
            reasons = [
                p
                for p in (*record.problems, *plan.problems)
                if p.photo == record.key and p.protection in ("", name)
            ]
            verdicts.append(refused(name, reasons))
            continue
        own = [
            summary.verdicts.verdict(record.key, name, g, summary.knowledge(g, name), entries)
            for g in labels
        ]
        verdicts.append(overall(own))
        single += own
    return PhotoFacts(
        key=record.key,
        path=record.path,
        sha256=record.sha256,
        size=record.size,
        has_face=record.has_face,
        files=record.files_with(further.file_settings),
        verdicts=(*verdicts, *single),
    )


def _kept(plan: Plan, found: Found, clips: ResultStore) -> list[KeptClip]:
    listed: dict[tuple[str, str], KeptClip] = {}  # one file may be the clip of two labels
    for record in found.records.values():
        for label in plan.generators:
            for task in kept_tasks(plan, record, label):
                path = clips.clip_path(task.clip_name)
                if clips.has_clip(task.clip_name):
                    listed[label, task.clip_name] = KeptClip(
                        photo=task.key,
                        protection=task.protection,
                        generator=label,
                        purification=task.entry.label,
                        prompt=task.prompt,
                        seed=task.seed,
                        path=_relative(path, clips.folder),
                    )
    return list(listed.values())


def _view_size(path: Path) -> tuple[int, int]:
    with safe_open(path, framework="pt") as stored:
        height, width = stored.get_slice("frames").get_shape()[-2:]
    return int(height), int(width)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder.parent).as_posix()
