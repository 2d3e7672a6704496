"""What can be said about each photo: after which purifications it is protected, and why not.

Two things are no evidence that a cloak survived a purification: clips that are not there, and clips
of a model that does not show the person in the clean photo's clip either. A photo with missing
clips is "not judged", unless the clips that are there already make it "not protected". Where too
few clips under noise give no bound, nothing was compared with noise: that is "not judged" too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from anti_i2v_lit.evaluation.calibration import DISTANCE, IDENTITY, face_networks
from anti_i2v_lit.evaluation.facts import (
    KNOWLEDGE,
    NOT_A_CLOAK,
    NOT_JUDGED,
    PROTECTED,
    UNKNOWN,
    UNPROTECTED,
    WEAKENED,
    WHITE_BOX,
    Problem,
    Verdict,
)
from anti_i2v_lit.evaluation.outcome import NoiseLimit, Threshold
from anti_i2v_lit.evaluation.plan import CLEAN
from anti_i2v_lit.evaluation.trials import Trials

Place = tuple[str, str, str]
# Unprotected is the worst: what was not judged cannot make it better.
_ORDER = {PROTECTED: 0, WEAKENED: 1, NOT_JUDGED: 2, UNPROTECTED: 3, NOT_A_CLOAK: 4}
# At one place, a network without evidence cannot excuse one that still sees the person.
_AT_PLACE = {PROTECTED: 0, NOT_JUDGED: 1, WEAKENED: 2, UNPROTECTED: 4}
_WITHOUT_BOUND = 3  # it may be unprotected, so it counts more than weakened
_BOUNDED = {
    UNKNOWN: "; nobody says which models computed this cloak, so a white-box result cannot be "
    "excluded",
    WHITE_BOX: "; every generator here computed the cloak, so nothing is known of others",
}
NO_PERSON = (
    "the model does not show the person anyway: after every purification the clips of the clean "
    "photo lie below the identity threshold"
)


@dataclass(frozen=True, kw_only=True)
class State:
    """A photo after one purification.

    Attributes:
        state: "protected", "weakened", "not protected" or "not judged".
        figure: that decided.
        value: of the figure, mean over the photo's clips.
        clean: the same of the clean photo's clips.
        num_missing: planned clips, or clean clips that belong to them, that were not judged.
        num_noisy: clips under noise, where they are too few for a bound; else None.
    """

    state: str
    figure: str = ""
    value: float = math.nan
    clean: float = math.nan
    num_missing: int = 0
    num_noisy: int | None = None

    @property
    def is_lost(self) -> bool:
        """Whether figures, not their absence, make it "not protected"."""
        compared = self.value if self.figure == DISTANCE else self.value - self.clean
        return self.state == UNPROTECTED and not math.isnan(compared)

    @property
    def says_nothing(self) -> bool:
        """Whether every clip is there and the clean ones do not show the person."""
        return self.state == NOT_JUDGED and not self.num_missing and self.num_noisy is None


class Verdicts:
    """Applies thresholds and limits to the photos.

    Args:
        trials: all results.
        thresholds: per generator and figure.
        limits: per generator, protection, purification and figure.
        planned: (prompt, seed) of every clip that each photo needs at each place.
    """

    def __init__(
        self,
        trials: Trials,
        thresholds: Sequence[Threshold],
        limits: Sequence[NoiseLimit],
        *,
        planned: Collection[tuple[str, int]],
    ) -> None:
        self._trials, self._networks = trials, face_networks(trials)
        self._planned = frozenset(planned)
        self._expected: dict[tuple[str, str], dict[str, None]] = {}
        for row in trials.results:
            self._expected.setdefault((row.generator, row.protection), {})[row.photo] = None
        self._thresholds = {(t.generator, t.figure): t.value for t in thresholds}
        self._limits = {(n.generator, n.protection, n.purification, n.figure): n for n in limits}
        self._states: dict[Place, dict[str, State]] = {}

    def states(self, place: Place) -> Mapping[str, State]:
        """Photo -> its state at one (generator, protection, purification).

        Every photo is listed that has a clip of the generator and the protection anywhere.
        """
        if place not in self._states:
            self._states[place] = self._find(place)
        return self._states[place]

    def _find(self, place: Place) -> dict[str, State]:
        missing = self._missing(place)
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
        for photo, count in missing.items():
            given = {f: [t.get(photo, math.nan) for t in some] for f, some in columns.items()}
            judged = [self._by_identity(place, f, *values) for f, values in given.items()]
            if not given or any(math.isnan(values[0]) for values in given.values()):
                judged = [self._by_distance(place, distances.get(photo, math.nan))]
            state = max(judged, key=_rank)
            if count and not state.is_lost:
                state = State(state=NOT_JUDGED)
            found[photo] = replace(state, num_missing=count)
        return found

    def _missing(self, place: Place) -> dict[str, int]:
        """Photo -> planned clips that have no row, or whose clean counterpart has none."""
        generator, protection, purification = place
        clean = {
            (row.photo, row.frame, row.prompt, row.seed)
            for row in self._trials.of(generator, CLEAN, purification)
        }
        judged: dict[str, set[tuple[str, int]]] = {}
        for row in self._trials.of(*place):
            if (row.photo, row.frame, row.prompt, row.seed) in clean:
                judged.setdefault(row.photo, set()).add((row.prompt, row.seed))
        photos = self._expected.get((generator, protection), ())
        return {photo: len(self._planned - judged.get(photo, set())) for photo in photos}

    def _by_identity(
        self, place: Place, figure: str, value: float, clean: float, change: float, highest: float
    ) -> State:
        limit, num_noisy = self._limit(place, figure)
        threshold = self._thresholds.get((place[0], figure), math.nan)
        state = UNPROTECTED
        if clean < threshold and value < threshold:
            # A person who is not there without the cloak cannot be lost by it.
            state, num_noisy = NOT_JUDGED, None
        elif num_noisy is not None:
            state = NOT_JUDGED
        elif change < limit:
            state = PROTECTED if highest < threshold else WEAKENED
        return State(state=state, figure=figure, value=value, clean=clean, num_noisy=num_noisy)

    def _by_distance(self, place: Place, value: float) -> State:
        """Without a face to compare, a clip that differs more than noise's is no more than that."""
        limit, num_noisy = self._limit(place, DISTANCE)
        state = WEAKENED if value > limit else UNPROTECTED
        if num_noisy is not None:
            state = NOT_JUDGED
        return State(state=state, figure=DISTANCE, value=value, num_noisy=num_noisy)

    def _limit(self, place: Place, figure: str) -> tuple[float, int | None]:
        """What noise may do, and the number of clips under noise if they are too few for it."""
        limit = self._limits.get((*place, figure))
        if limit is None:
            return math.nan, 0
        return limit.value, limit.num_clips if math.isnan(limit.value) else None

    def verdict(
        self,
        photo: str,
        protection: str,
        generator: str,
        knowledge: str,
        purifications: Sequence[str],
    ) -> Verdict:
        """The verdict of a photo for one generator over all purifications; the worst decides.

        Missing clips make it "not judged", unless it is "not protected" without them. Purifications
        after which the clean clips do not show the person are left out; if that is all of them,
        it is "not judged".
        """
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
        if all(state.says_nothing for state in known.values()):
            return replace(verdict, reason=NO_PERSON)
        telling = {u: state for u, state in known.items() if not state.says_nothing}
        after = {s: tuple(u for u, x in telling.items() if x.state == s) for s in _ORDER}
        hardest, state = max(telling.items(), key=lambda pair: _severity(pair[1]))
        if math.isnan(state.value):
            hardest = ""
        return replace(
            verdict,
            verdict=max((s.state for s in telling.values()), key=_ORDER.__getitem__),
            reason=_sentence(after, generator, state, known),
            protected_after=after[PROTECTED],
            weakened_after=after[WEAKENED],
            lost_after=after[UNPROTECTED],
            figure=state.figure,
            hardest=hardest,
            value=state.value,
            clean=state.clean,
        )


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst verdict over the held-out generators.

    Where there are none, over those of which nobody says whether they computed the cloak; over
    white-box ones where there are no others. Generators that do not show the person anyway are
    left out, if there are others.
    """
    best = min((v.knowledge for v in verdicts), key=KNOWLEDGE.index)
    asked = [v for v in verdicts if v.knowledge == best]
    telling = [v for v in asked if v.reason != NO_PERSON]
    worst = max(telling or asked, key=lambda v: (_ORDER[v.verdict], len(v.lost_after)))
    reason = worst.reason
    silent = [v.generator for v in asked if v.reason == NO_PERSON]
    if silent and telling:
        reason += f"; nothing is known of {_listed(silent)}, not showing the person anyway"
    return replace(worst, generator="", reason=reason + _BOUNDED.get(best, ""))


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


def _rank(state: State) -> int:
    """Which network's state stands for a place: the highest."""
    return _AT_PLACE[state.state] if state.num_noisy is None else _WITHOUT_BOUND


def _severity(state: State) -> tuple[int, float]:
    value = -math.inf if math.isnan(state.value) else state.value
    return _ORDER[state.state], value if state.figure != DISTANCE else -value


def _sentence(
    after: Mapping[str, Sequence[str]], generator: str, worst: State, states: Mapping[str, State]
) -> str:
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
    unbounded = {u: s.num_noisy for u, s in states.items() if s.num_noisy is not None}
    if unbounded:
        parts.append(
            f"too few noise clips ({min(unbounded.values())}) for a bound: raise noise.seeds; not "
            f"judged after {_listed(list(unbounded))}"
        )
    lacking = [f"{u} ({s.num_missing} clips)" for u, s in states.items() if s.num_missing]
    if lacking:
        parts.append(f"not every planned clip was judged: missing after {_listed(lacking)}")
    silent = [u for u, s in states.items() if s.says_nothing]
    if silent:
        parts.append(
            "nothing can be said where the clean photo's clips do not show the person either: "
            + _listed(silent)
        )
    return "; ".join(parts) + f" (generator {generator})"


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels)
