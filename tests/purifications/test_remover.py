"""The learned remover learns what a cloak adds, resumes, and subtracts its share."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anti_i2v_lit.purifications import fitting, measure_remover, train_remover
from anti_i2v_lit.purifications.fitting import fit
from anti_i2v_lit.purifications.remover import LearnedRemover, RemoverNet, load_remover
from anti_i2v_lit.purifications.train_remover import RemoverTraining, load_pairs


@pytest.fixture
def pair_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Smooth photos, and the same with a chequered pattern on top."""
    clean, cloaked = tmp_path / "clean", tmp_path / "cloaked"
    clean.mkdir()
    cloaked.mkdir()
    rows, columns = np.mgrid[:64, :64]
    board = 16 * ((rows + columns) % 2) - 8
    for number in range(2):
        photo = np.stack([80 + rows, 90 + columns, 100 + 20 * number + rows // 2], axis=-1)
        Image.fromarray(photo.astype(np.uint8)).save(clean / f"{number}.png")
        name = f"{number}.png" if number else f"{number}.png.png"
        Image.fromarray((photo + board[..., None]).astype(np.uint8)).save(cloaked / name)
    return clean, cloaked


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second a step, so that a minute is sixty steps anywhere."""
    ticks = itertools.count()
    monkeypatch.setattr(fitting, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(fitting, "_WARM_UP_STEPS", 5)
    monkeypatch.setattr(train_remover, "_BATCH", 2)
    monkeypatch.setattr(train_remover, "_SIDE_PX", 32)


class Constant(RemoverNet):
    """Finds the same residual everywhere."""

    def forward(self, photos: Tensor) -> Tensor:
        return torch.full_like(photos, 0.1)


def test_severity_is_the_share_subtracted_at_the_photos_own_size() -> None:
    purification = LearnedRemover(LearnedRemover.Config(work_px=16), Constant())
    photo = 0.3 + 0.5 * torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    found = purification.purify(photo, 0.5, torch.Generator())
    torch.testing.assert_close(found, photo - 0.05)


def test_pairs_are_found_by_name(pair_folders: tuple[Path, Path]) -> None:
    pairs = load_pairs(*pair_folders)
    assert len(pairs) == 2
    assert all((cloak.int() - photo.int()).abs().eq(8).all() for photo, cloak in pairs)
    with pytest.raises(ValueError, match="no file of"):
        Image.new("RGB", (64, 64)).save(pair_folders[0].parent / "other.png")
        (pair_folders[0].parent / "else").mkdir()
        Image.new("RGB", (64, 64)).save(pair_folders[0].parent / "else" / "x.png")
        load_pairs(pair_folders[0], pair_folders[0].parent / "else")


def test_training_lowers_the_error_and_the_file_is_loaded_again(
    pair_folders: tuple[Path, Path], tmp_path: Path, seconds: None
) -> None:
    clean, cloaked = map(str, pair_folders)
    out = tmp_path / "remover.safetensors"
    words = ["--clean", clean, "--cloaked", cloaked, "--out", str(out)]
    train_remover.main([*words, "--minutes", "1"])
    assert out.stat().st_size < 1_000_000
    photo, cloak = (image[None].float() / 255.0 for image in load_pairs(*pair_folders)[0])
    residual = load_remover(str(out))(cloak)
    assert ((cloak - residual) - photo).square().mean() < 0.7 * (cloak - photo).square().mean()


def test_an_interrupted_training_goes_on(
    pair_folders: tuple[Path, Path], tmp_path: Path, seconds: None
) -> None:
    pairs = load_pairs(*pair_folders)
    module = RemoverTraining(pairs, minutes=3 / 60)
    fit(module, tmp_path / "work")
    again = RemoverTraining(pairs, minutes=5 / 60)
    fit(again, tmp_path / "work")
    assert (module.global_step, again.global_step) == (3, 5)
    assert again.seconds_spent == 5.0


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_remover"):
        load_remover(str(tmp_path / "absent.safetensors"))
    (tmp_path / "text.safetensors").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="does not hold a remover"):
        load_remover(str(tmp_path / "text.safetensors"))
    with pytest.raises(ValueError, match="minutes: expected more than 0"):
        RemoverTraining([], minutes=0)


def test_figures_of_a_remover_are_those_of_its_residual(
    pair_folders: tuple[Path, Path],
) -> None:
    """A chequered pattern of +-8 levels, of which the constant 0.1 takes nothing away."""
    remover = LearnedRemover(LearnedRemover.Config(), Constant())
    found = measure_remover.measure(remover, load_pairs(*pair_folders))
    assert found.before == pytest.approx(8.0)
    assert found.harm == pytest.approx(25.5, rel=1e-3)
    assert found.after == pytest.approx((8.0**2 + 25.5**2) ** 0.5, rel=1e-3)
    assert found.energy_removed == pytest.approx(1.0 - (found.after / 8.0) ** 2, rel=1e-3)
