"""Means of several cloaks, against numpy, and as a folder that an evaluation can pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.evaluation.pairs import pair
from anti_i2v_lit.purifications.averaging import average_cloaks, main, write_averages


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    numbers = np.random.default_rng(0)
    found = []
    for seed in range(3):
        folder = tmp_path / f"seed_{seed}"
        (folder / "sub").mkdir(parents=True)
        for name in ("a.png", "sub/b.png"):
            pixels = numbers.integers(0, 256, (12, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        found.append(folder)
    Image.new("RGB", (4, 4)).save(found[0] / "only_here.png")
    return found


def test_a_mean_is_numpys(folders: list[Path]) -> None:
    paths = [folder / "a.png" for folder in folders]
    expected = np.mean([np.asarray(Image.open(path)) for path in paths], axis=0) / 255.0
    np.testing.assert_allclose(average_cloaks(paths).permute(1, 2, 0), expected, atol=1e-6)


def test_a_folder_of_means_is_paired_by_the_evaluation(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "means"
    main([*map(str, folders), "--out", str(out)])
    photos = [SourceFile(key=key, path=folders[0] / key) for key in ("a.png", "sub/b.png")]
    pairing = pair(photos, out)
    assert not pairing.missing
    pixels = [np.asarray(Image.open(folder / "sub/b.png")) for folder in folders]
    apart = np.asarray(Image.open(pairing.found["sub/b.png"])) - np.mean(pixels, axis=0)
    assert np.abs(apart).max() <= 0.5


def test_orientation_tags_are_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        Image.new("RGB", (20, 10), "red").save(tmp_path / f"{name}.jpg", exif=exif)
    assert average_cloaks([tmp_path / "a.jpg", tmp_path / "b.jpg"]).shape == (3, 20, 10)


def test_refusals(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two cloaks"):
        average_cloaks([folders[0] / "a.png"])
    with pytest.raises(ValueError, match="differ in size"):
        average_cloaks([folders[0] / "a.png", folders[0] / "only_here.png"])
    with pytest.raises(ValueError, match="at least two folders"):
        write_averages([folders[0]], tmp_path / "out")
