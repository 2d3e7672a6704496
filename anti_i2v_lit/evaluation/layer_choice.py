"""From scores of layers to taps: the proposal, its table, and settings that use it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from anti_i2v_lit.evaluation.layers import LayerScore, shallow_tap

_NUM_DEEP = 3


@dataclass(frozen=True, kw_only=True)
class TapChoice:
    """Taps for the two feature terms.

    Attributes:
        shallow: IRC's tap i.
        deep: IRC's taps j, shallow to deep.
        anchor: IRA's taps, shallow to deep.
    """

    shallow: str
    deep: tuple[str, ...]
    anchor: tuple[str, ...]


def automatic_taps(taps: Sequence[str]) -> TapChoice:
    """What the terms take when nothing is configured: the published rule, third and last three.

    Raises:
        ValueError: fewer than two taps.
    """
    _check_depth(taps)
    shallow = shallow_tap(taps)
    last = tuple(taps[-_NUM_DEEP:])
    return TapChoice(
        shallow=shallow, deep=tuple(tap for tap in last if tap != shallow), anchor=last
    )


def propose_taps(scores: Sequence[LayerScore]) -> TapChoice:
    """Taps by measurement.

    IRC pulls the most semantic blocks of the deeper half down to the least semantic block of the
    first third; IRA anchors the most semantic blocks anywhere behind that one.

    Args:
        scores: all taps, shallow to deep.

    Raises:
        ValueError: fewer than two taps.
    """
    _check_depth(scores)
    first_third = scores[: max(1, len(scores) // 3)]
    shallow = min(first_third, key=lambda score: score.semantic)
    behind = scores[scores.index(shallow) + 1 :]
    deeper = [score for score in behind if scores.index(score) >= len(scores) // 2]
    return TapChoice(shallow=shallow.tap, deep=_best(deeper or behind), anchor=_best(behind))


def _check_depth(taps: Sequence[Any]) -> None:
    if len(taps) < 2:
        raise ValueError(
            f"expected at least two denoiser taps to choose from, got {len(taps)}; this model "
            "needs no choice"
        )


def _best(scores: Sequence[LayerScore]) -> tuple[str, ...]:
    chosen = sorted(scores, key=lambda score: -score.semantic)[:_NUM_DEEP]
    return tuple(score.tap for score in scores if score in chosen)


def layer_table(scores: Sequence[LayerScore]) -> str:
    """Markdown, shallow to deep; the gain is over the shallow block of the published rule."""
    shallow = shallow_tap([score.tap for score in scores])
    (base,) = (score.semantic for score in scores if score.tap == shallow)
    lines = [
        "| tap | face / background | same / other person | distance to shallow | semantic | gain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for score in scores:
        identity = "not measured"
        if score.identity is not None and score.identity_spread is not None:
            identity = f"{score.identity:.3f} ± {score.identity_spread:.3f}"
        lines.append(
            f"| {score.tap} | {score.face:.3f} ± {score.face_spread:.3f} | {identity} "
            f"| {score.departure:.3f} | {score.semantic:.3f} | {score.semantic - base:+.3f} |"
        )
    return "\n".join(lines)


def with_taps(
    choice: TapChoice, surrogate: Mapping[str, Any], objectives: Sequence[Mapping[str, Any]]
) -> str:
    """A configuration file that attacks this surrogate at the chosen taps.

    Args:
        choice: from `propose_taps`.
        surrogate: {name, weight, <fields>}.
        objectives: {name, weight, <fields>} per term; IRC and IRA on the denoiser get the taps
            and are added where missing.
    """
    fields: dict[str, dict[str, Any]] = {
        "irc": {"shallow_tap": choice.shallow, "deep_taps": list(choice.deep)},
        "ira_denoiser": {"taps": list(choice.anchor)},
    }
    nodes = [{**node, **fields.get(str(node["name"]), {})} for node in objectives]
    named = {node["name"] for node in nodes}
    nodes += [{"name": name, **taps} for name, taps in fields.items() if name not in named]
    document = {"surrogates": [dict(surrogate)], "objectives": nodes}
    return yaml.safe_dump(document, sort_keys=False)


def as_plain(scores: Sequence[LayerScore], choice: TapChoice) -> dict[str, Any]:
    """Everything measured and proposed, ready for JSON."""
    return {
        "layers": [dataclasses.asdict(score) for score in scores],
        "proposed": dataclasses.asdict(choice),
        "automatic": dataclasses.asdict(automatic_taps([score.tap for score in scores])),
    }
