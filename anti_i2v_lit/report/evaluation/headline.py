"""The one sentence at the top of the page."""

from __future__ import annotations

from anti_i2v_lit.evaluation.facts import (
    HELD_OUT,
    NOT_A_CLOAK,
    NOT_JUDGED,
    PROTECTED,
    UNKNOWN,
    WEAKENED,
)
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.report.evaluation.photos import Tally, verdict_of
from anti_i2v_lit.report.evaluation.text import amount

NOTHING = "Nothing was judged to the end, so nothing is claimed."
PERSON_LEFT = "leaves the person in the clean photo's clips"


def title(outcome: Outcome, tallies: list[Tally]) -> str:
    """A failed evaluation first of all; else how many photos stay protected, where, after what.

    It counts the first protection's verdicts, each the worst over purifications and models.
    """
    failing = sum(problem.fails for problem in outcome.problems)
    if failing:
        return f"This evaluation fails: {amount(failing, 'problem')} with the files or the run."
    return sentence(outcome, tallies)


def sentence(outcome: Outcome, tallies: list[Tally]) -> str:
    """How many photos stay protected, after what, measured on which models."""
    if not tallies or tallies[0].total == tallies[0].counts[NOT_JUDGED]:
        return NOTHING
    tally = tallies[0]
    kept, weakened = tally.counts[PROTECTED], tally.counts[WEAKENED]
    more = f"; {weakened} more {'is' if weakened == 1 else 'are'} weakened" if weakened else ""
    for word in (NOT_A_CLOAK, NOT_JUDGED):
        if tally.counts[word]:
            more += f"; {tally.counts[word]} {word}"
    return (
        f"{tally.protection}: {kept} of {amount(tally.total, 'photo')} "
        f"{'stays' if tally.total == 1 else 'stay'} protected {_after(outcome, tally)}, "
        f"measured on {_models(outcome, tally)}{more}."
    )


def _after(outcome: Outcome, tally: Tally) -> str:
    real = [p.label for p in outcome.purifications if p.name]
    if not real:
        return "as long as the file is left as it is"
    passed_over = _passed_over(outcome, tally, real)
    if len(real) == 1:
        return f"after {real[0]}" + (f", where it {PERSON_LEFT}" if passed_over else "")
    more = f" that {PERSON_LEFT}" if passed_over else ""
    return f"after every one of {len(real)} purifications{outcome.distinct(real)}{more}"


def _passed_over(outcome: Outcome, tally: Tally, labels: list[str]) -> bool:
    """Whether a photo counts as protected though a purification says nothing about it."""
    return any(
        not set(labels) <= set(verdict.protected_after)
        for photo in outcome.photos
        if verdict_of(photo, tally.protection).verdict == PROTECTED
        for verdict in photo.verdicts
        if (verdict.protection, verdict.knowledge) == (tally.protection, tally.knowledge)
    )


def _models(outcome: Outcome, tally: Tally) -> str:
    """The models whose verdicts count, and what is known of their part in the protection."""
    facts = next((p for p in outcome.protections if p.name == tally.protection), None)
    labels = [g.label for g in outcome.generators]
    asked = [g for g in labels if facts is not None and facts.knowledge(g) == tally.knowledge]
    listed = f" {asked[0]}" if len(asked) == 1 else f" ({', '.join(asked)})"
    if tally.knowledge == HELD_OUT:
        count = "the" if len(asked) == 1 else f"{len(asked)}"
        return f"{count} {HELD_OUT} video model{'' if len(asked) == 1 else 's'}{listed}"
    if tally.knowledge == UNKNOWN:
        count = "the video model" if len(asked) == 1 else f"{len(asked)} video models"
        return (
            f"{count}{listed}; nobody says which models computed the protection, so a white-box "
            "result cannot be excluded"
        )
    return "white-box video models only, which says nothing about others"
