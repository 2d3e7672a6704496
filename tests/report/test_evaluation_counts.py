"""What the page says of its numbers: the coverage of intervals, and what stands behind noise."""

import dataclasses
import re

from anti_i2v_lit.evaluation.facts import Counts
from anti_i2v_lit.report.evaluation import write_report

from .outcomes import make

FEWER = Counts(photos=4, prompts=1, seeds=7, clips=28)


def test_the_coverage_of_the_intervals_is_that_of_the_settings(tmp_path):
    outcome = make(tmp_path, photos=3, clips=False)
    for settings, shown in (
        ({}, "95 %"),
        ({"statistics": {"level": 0.8}}, "80 %"),
        ({"statistics": {"level": 0.995}}, "99.5 %"),
    ):
        page = dataclasses.replace(outcome, settings=settings)
        text = write_report(page, tmp_path).read_text(encoding="utf-8")
        assert re.findall(r"([0-9.]+ %) intervals", text) == [shown] * 3


def test_noise_has_counts_of_its_own(tmp_path):
    outcome = make(tmp_path, photos=4, clips=False)
    kept = [r for r in outcome.summary if r.to_noise]
    summary = tuple(dataclasses.replace(r, noise_counts=FEWER) for r in kept)
    cells = tuple(dataclasses.replace(c, noise_counts=FEWER) for c in outcome.heat)
    page = dataclasses.replace(outcome, summary=summary, heat=cells)
    text = write_report(page, tmp_path).read_text(encoding="utf-8")
    fields = len(cells) + sum(len(row.to_noise) for row in summary)
    assert text.count("<small>4 photos × 1 prompt × 7 seeds</small>") == fields
