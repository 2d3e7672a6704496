"""Figures of whole sets of clips, such as FVD: a protection's clips against the clean photos'."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from anti_i2v_lit.evaluation.facts import AbsentMetric
from anti_i2v_lit.evaluation.further import Further
from anti_i2v_lit.evaluation.outcome import SetFigure
from anti_i2v_lit.evaluation.plan import Plan
from anti_i2v_lit.evaluation.store import Result, ResultStore
from anti_i2v_lit.evaluation.trials import Trials
from anti_i2v_lit.metrics.availability import build_set_metric
from anti_i2v_lit.metrics.base import GeneratedClip

_AT_ONCE = 16


def compare_sets(
    plan: Plan, results: Sequence[Result], further: Further, clips: ResultStore
) -> tuple[tuple[SetFigure, ...], tuple[AbsentMetric, ...]]:
    """Every figure of sets that can be taken, once per protection, purification and generator.

    Args:
        plan: what was evaluated.
        results: its rows.
        further: names the set metrics.
        clips: where the clips are.

    Returns:
        The figures, and those that are undefined here, with the reason.
    """
    if not further.of_sets:
        return (), ()
    if plan.settings.clips.keep != "all":
        reason = "needs every clip: run with clips.keep=all"
        return (), tuple(AbsentMetric(name=n, reason=reason) for n in further.of_sets)
    trials = Trials(results)
    found: list[SetFigure] = []
    absent: dict[str, AbsentMetric] = {}
    places = itertools.product(plan.generators, plan.protections, plan.entries)
    for label, matched, entry in places:
        place = (label, matched.name, entry.label)
        for name in further.of_sets:
            try:
                value = _distance(name, further, trials, place, clips)
            except ValueError as error:
                absent.setdefault(name, AbsentMetric(name=name, reason=str(error)))
                continue
            if math.isnan(value):
                reason = "there are fewer clips than it needs (its field min_clips)"
                absent.setdefault(name, AbsentMetric(name=name, reason=reason))
                continue
            found.append(
                SetFigure(
                    generator=label,
                    protection=matched.name,
                    purification=entry.label,
                    figure=name,
                    value=value,
                    counts=trials.counts(*place),
                )
            )
    return tuple(found), tuple(absent.values())


def _distance(
    name: str, further: Further, trials: Trials, place: tuple[str, str, str], clips: ResultStore
) -> float:
    metric = build_set_metric(further.of_sets[name], further.weights)
    judged = trials.of(*place)
    # Sorted by what they are, so that sums do not depend on the order of the work.
    for some in _batches(sorted(judged, key=_order)):
        metric.update(judged=list(_loaded(some, clips)))
    clean = trials.clean_of(*place)
    for some in _batches(sorted(clean, key=_order)):
        metric.update(reference=list(_loaded(some, clips)))
    return float(metric.compute())


def _loaded(results: Sequence[Result], clips: ResultStore) -> Iterator[GeneratedClip]:
    for result in results:
        frames: Tensor | None = clips.load_clip(result.identity)
        if frames is None:
            raise ValueError(
                f"the clip of {result.photo} ({result.protection}, {result.purification}) is not "
                "on the disk: run the evaluation again with clips.keep=all"
            )
        yield GeneratedClip(key=result.identity, photo=frames[0], frames=frames)


def _order(result: Result) -> tuple[str, str, int, str]:
    return result.photo, result.prompt, result.seed, result.frame


def _batches(results: Sequence[Result]) -> Iterator[Sequence[Result]]:
    return (results[i : i + _AT_ONCE] for i in range(0, len(results), _AT_ONCE))
