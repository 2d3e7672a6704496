"""What can be said about each photo: after which purifications it is protected, and why not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from anti_i2v_lit.evaluation.calibration import DISTANCE, IDENTITY, face_networks
from anti_i2v_lit.evaluation.facts import (
    HELD_OUT,
    NOT_A_CLOAK,
    NOT_JUDGED,
    PROTECTED,
    UNPROTECTED,
    WEAKENED,
    Problem,
    Verdict,
)
from anti_i2v_lit.evaluation.outcome import NoiseLimit, Threshold
from anti_i2v_lit.evaluation.trials import Trials

Place = tuple[str, str, str]
_ORDER = {PROTECTED: 0, WEAKENED: 1, UNPROTECTED: 2, NOT_JUDGED: 3, NOT_A_CLOAK: 4}


@dataclass(frozen=True, kw_only=True)
class State:
    """A photo after one purification: one of the verdicts, and the figure that decided."""

    state: str
    figure: str = ""
    value: float = math.nan
    clean: float = math.nan


class Verdicts:
    """Applies thresholds and limits to the photos.

    Args:
        trials: all results.
        thresholds: per generator and figure.
        limits: per generator, protection, purification and figure.
    """

    def __init__(
        self, trials: Trials, thresholds: Sequence[Threshold], limits: Sequence[NoiseLimit]
    ) -> None:
        self._trials, self._networks = trials, face_networks(trials)
        self._thresholds = {(t.generator, t.figure): t.value for t in thresholds}
        self._limits = {
            (n.generator, n.protection, n.purification, n.figure): n.value for n in limits
        }
        self._states: dict[Place, dict[str, State]] = {}

    def states(self, place: Place) -> Mapping[str, State]:
        """Photo -> its state at one (generator, protection, purification)."""
        if place not in self._states:
            self._states[place] = self._find(place)
        return self._states[place]

    def _find(self, place: Place) -> dict[str, State]:
        photos = self._trials.photos(*place)
        figures = [IDENTITY.format(network) for network in self._networks]
        columns = {
            figure: (
                self._trials.means(place, figure),
                self._trials.clean_means(place, figure),
                self._trials.to_clean(place, figure),
                self._trials.highest(place, figure),
            )
            for figure in figures
        }
        distances = self._trials.means(place, DISTANCE)
        found = {}
        for photo in photos:
            judged = [
                self._by_identity(place, figure, *(table.get(photo, math.nan) for table in tables))
                for figure, tables in columns.items()
            ]
            judged = [state for state in judged if state.state != NOT_JUDGED]
            if not judged or len(judged) < len(figures):
                judged = [self._by_distance(place, distances.get(photo, math.nan))]
            found[photo] = max(judged, key=lambda state: _ORDER[state.state])
        return found

    def _by_identity(
        self, place: Place, figure: str, value: float, clean: float, change: float, highest: float
    ) -> State:
        if math.isnan(value):
            return State(state=NOT_JUDGED)
        limit = self._limits.get((*place, figure), math.nan)
        threshold = self._thresholds.get((place[0], figure), math.nan)
        state = UNPROTECTED
        if change < limit:
            state = PROTECTED if highest < threshold else WEAKENED
        return State(state=state, figure=figure, value=value, clean=clean)

    def _by_distance(self, place: Place, value: float) -> State:
        """Without a face to compare, a clip that differs more than noise's is no more than that."""
        limit = self._limits.get((*place, DISTANCE), math.nan)
        state = WEAKENED if value > limit else UNPROTECTED
        return State(state=state, figure=DISTANCE, value=value)

    def verdict(
        self,
        photo: str,
        protection: str,
        generator: str,
        knowledge: str,
        purifications: Sequence[str],
    ) -> Verdict:
        """The verdict of a photo for one generator over all purifications; the worst decides."""
        states = {u: self.states((generator, protection, u)).get(photo) for u in purifications}
        known = {label: state for label, state in states.items() if state is not None}
        verdict = Verdict(
            protection=protection,
            generator=generator,
            knowledge=knowledge,
            verdict=NOT_JUDGED,
            reason="no clip of it was judged",
        )
        if not known:
            return verdict
        after = {s: tuple(u for u, x in known.items() if x.state == s) for s in _ORDER}
        hardest, state = max(known.items(), key=lambda pair: _severity(pair[1]))
        return replace(
            verdict,
            verdict=max((s.state for s in known.values()), key=_ORDER.__getitem__),
            reason=_sentence(after, generator, state),
            protected_after=after[PROTECTED],
            weakened_after=after[WEAKENED],
            lost_after=after[UNPROTECTED],
            figure=state.figure,
            hardest=hardest,
            value=state.value,
            clean=state.clean,
        )


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst verdict over the held-out generators; over the others if all are white-box."""
    held_out = [v for v in verdicts if v.knowledge == HELD_OUT]
    worst = max(held_out or verdicts, key=lambda v: (_ORDER[v.verdict], len(v.lost_after)))
    reason = worst.reason
    if not held_out:
        reason += "; every generator here computed the cloak, so nothing is known of others"
    return replace(worst, generator="", reason=reason)


def refused(protection: str, problems: Iterable[Problem]) -> Verdict:
    """The verdict of a photo that has no cloak to judge."""
    listed = list(problems)
    swapped = any(p.kind == "swapped" for p in listed)
    reasons = "; ".join(p.reason for p in listed) or "it could not be evaluated"
    return Verdict(
        protection=protection,
        generator="",
        knowledge="",
        verdict=NOT_A_CLOAK if swapped else NOT_JUDGED,
        reason=reasons,
    )


def _severity(state: State) -> tuple[int, float]:
    value = -math.inf if math.isnan(state.value) else state.value
    return _ORDER[state.state], value if state.figure != DISTANCE else -value


def _sentence(after: Mapping[str, Sequence[str]], generator: str, worst: State) -> str:
    parts = []
    if after[PROTECTED]:
        parts.append(f"protected after {_listed(after[PROTECTED])}")
    if after[WEAKENED]:
        what = "changed more than noise changes it, but still the person,"
        if worst.figure == DISTANCE:
            what = "changed more than noise changes it (no face was compared)"
        parts.append(f"{what} after {_listed(after[WEAKENED])}")
    if after[UNPROTECTED]:
        parts.append(f"no better than noise of equal size after {_listed(after[UNPROTECTED])}")
    return "; ".join(parts) + f" (generator {generator})"


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels)
