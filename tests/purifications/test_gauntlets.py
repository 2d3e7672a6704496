"""The named gauntlets: buildable, ordered, nested, with one meaning per label."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from anti_i2v_lit.cloaking.transforms import build_transforms
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.gauntlets import GAUNTLETS, GauntletRow, gauntlet


@pytest.mark.parametrize("name", GAUNTLETS)
def test_rows_start_with_nothing_and_have_unique_labels(name: str) -> None:
    rows = gauntlet(name)
    assert rows[0].label == "none" and rows[0].build() is None
    assert all(row.config is not None for row in rows[1:])
    assert len({row.label for row in rows}) == len(rows)
    assert all(0 < row.severity <= 1 for row in rows[1:])


def test_a_label_means_the_same_everywhere() -> None:
    meanings: dict[str, GauntletRow] = {}
    for rows in GAUNTLETS.values():
        for row in rows:
            assert meanings.setdefault(row.label, row) == row


def test_each_tier_holds_the_one_before() -> None:
    written, audit, release = (
        [row.label for row in gauntlet(name)] for name in ("written", "audit", "release")
    )
    assert audit[: len(written)] == written and release[: len(audit)] == audit


def test_the_release_gauntlet_knows_every_purification() -> None:
    used = {row.config["name"] for row in gauntlet("release") if row.config is not None}
    assert used == set(PURIFICATIONS.names())


def test_quick_is_nothing_and_five_more_with_the_platform_stack() -> None:
    names = [row.config["name"] for row in gauntlet("quick") if row.config is not None]
    assert len(names) == 5 and "platform" in names


def test_networks_purify_at_the_size_that_is_asked_for() -> None:
    rows = {row.label: row for row in gauntlet("release", work_px=480)}
    plain = {row.label: row for row in gauntlet("release")}
    for label, row in rows.items():
        if row.config is not None:
            fields = {field.name for field in dataclasses.fields(_config_of(row))}
            assert row.config.get("work_px") == (480 if "work_px" in fields else None), label
        assert {**(row.config or {}), "work_px": 0} == {**(plain[label].config or {}), "work_px": 0}
    with pytest.raises(ValueError, match="work_px must be"):
        gauntlet("release", work_px=5)


def _config_of(row: GauntletRow) -> Any:
    assert row.config is not None
    return PURIFICATIONS.load(row.config["name"]).Config


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown gauntlet 'quik'. Did you mean 'quick'"):
        gauntlet("quik")


def test_quick_rows_change_a_photo() -> None:
    photo = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    for row in gauntlet("quick")[1:]:
        purification = row.build()
        assert purification is not None
        after = purification.purify(photo, row.severity, torch.Generator().manual_seed(0))
        assert not torch.equal(after, photo), row.label


@pytest.mark.parametrize(("label", "quality"), [("JPEG q75 4:2:0", 75), ("JPEG q95 4:4:4", 95)])
def test_jpeg_labels_name_the_quality_used(label: str, quality: int) -> None:
    (row,) = (row for row in gauntlet("release") if row.label == label)
    assert row.config is not None
    purification = PURIFICATIONS.build(row.config)
    assert purification.quality(row.severity) == quality  # type: ignore[attr-defined]
    assert row.config["subsampling"] == label.split()[-1]


def test_what_has_no_gradient_is_refused_by_the_attack_loop() -> None:
    refused = set()
    for name in PURIFICATIONS.names():
        try:
            build_transforms([{"name": name}])
        except ValueError as error:
            assert "has no gradient" in str(error)
            refused.add(name)
    assert refused == {"diffpure", "gridpure", "noisy_upscaling"}
