"""Names of a table's purifications: single ones, gauntlets, and their severities."""

from __future__ import annotations

import pytest
import torch

from anti_i2v_lit.bench.purify import identities_named, purifications_named, rows_named
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.gauntlets import gauntlet


def test_gauntlets_are_spelled_out_and_every_label_comes_once() -> None:
    quick = [row.label for row in gauntlet("quick")]
    found = rows_named(["none", "quick", "blur", "written"])
    assert list(found)[: len(quick)] == quick and "blur" in found
    assert set(found) == {*quick, "blur", *(row.label for row in gauntlet("written"))}
    with pytest.raises(ValueError, match="unknown purification 'wash'"):
        rows_named(["wash"])


def test_single_rows_of_gauntlets_go_by_their_labels() -> None:
    known = {row.label: row for row in gauntlet("release", work_px=64)}
    names = ["WebP q50", "VAE of unet_128", "screenshot"]
    assert rows_named(names, 64) == {name: known[name] for name in names}


def test_a_row_runs_at_its_own_severity() -> None:
    photos = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    made = purifications_named(["quick"], 32)
    assert made["none"] is None
    for row in gauntlet("quick", work_px=32):
        inner, ours = row.build(), made[row.label]
        if inner is None or ours is None:
            continue
        seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
        expected = inner.purify(photos, row.severity, seeds[0])
        torch.testing.assert_close(ours.purify(photos, 1.0, seeds[1]), expected, rtol=0, atol=0)
        assert ours.is_differentiable == inner.is_differentiable
        assert not torch.equal(expected, photos)


def test_faces_reach_the_purification() -> None:
    photos = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    made = purifications_named(["face_crop"], 32)["face_crop"]
    assert made is not None
    face = [(0.1, 0.1, 0.3, 0.3)]
    expected = PURIFICATIONS.build({"name": "face_crop"}).purify(
        photos, 1.0, torch.Generator(), faces=face
    )
    found = made.purify(photos, 1.0, torch.Generator(), faces=face)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(found, made.purify(photos, 1.0, torch.Generator()))


def test_identities_are_those_of_settings_severity_and_size() -> None:
    at_32, at_64 = identities_named(["audit", "blur"], 32), identities_named(["audit", "blur"], 64)
    assert set(at_32) == set(purifications_named(["blur"], 32)) | {
        row.label for row in gauntlet("audit")
    }
    assert at_32["blur"] == at_64["blur"]
    assert at_32["DiffPure t*=100"] != at_64["DiffPure t*=100"]


def test_a_single_name_is_the_purification_at_full_severity() -> None:
    photos = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    made = purifications_named(["blur"], 32)["blur"]
    assert made is not None
    generator = torch.Generator()
    expected = PURIFICATIONS.build({"name": "blur"}).purify(photos, 1.0, generator)
    torch.testing.assert_close(made.purify(photos, 1.0, generator), expected, rtol=0, atol=0)
