"""What could not be evaluated, written down by whichever process met it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.journal import Journal
from anti_i2v_lit.evaluation.outcome_file import from_plain, to_plain

Unit = tuple[str, str]


class FailureLog:
    """`failures.jsonl` of a folder. A failed photo is tried again by the next run.

    Args:
        folder: made on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder, "failures")
        self._earlier = sum(1 for _ in self._journal.new_lines())
        self._known: dict[Unit, Problem] = {}

    def append(self, key: str, label: str, problem: Problem) -> None:
        """Write down that a photo could not be done with a generator."""
        self._journal.append([{"key": key, "generator": label, "problem": to_plain(problem)}])

    def of(self, still: Callable[[str, str], bool]) -> dict[Unit, Problem]:
        """(generator, key) -> what went wrong since this run began, where it still holds.

        Args:
            still: whether rows of a key by a generator are still missing.
        """
        for _, _, line in self._journal.new_lines():
            plain = json.loads(line)
            unit = (plain["generator"], plain["key"])
            self._known[unit] = from_plain(Problem, plain["problem"], "problem")
        return {
            (label, key): problem
            for (label, key), problem in self._known.items()
            if still(key, label)
        }
