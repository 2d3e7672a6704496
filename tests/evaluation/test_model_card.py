"""The scores of model cards, on generators and rulers whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from anti_i2v_lit.evaluation import model_card
from anti_i2v_lit.evaluation.model_card import Measured, clip_scores, family_of, main, squares
from anti_i2v_lit.generators.base import VideoGenerator

SIDE = 64


class Brightening(VideoGenerator):
    """Each frame is a grey level of 10/255 brighter than the one before; perfect autoencoder."""

    @property
    def view_size(self) -> tuple[int, int]:
        return SIDE, SIDE

    @classmethod
    def tiny(cls) -> Brightening:
        return cls()

    def _generate(self, photos: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        steps = torch.arange(3).view(1, 3, 1, 1, 1) * 10 / 255
        return photos[:, None] + steps

    def encode(self, photos: Tensor) -> Tensor:
        return photos

    def reconstruct(self, photos: Tensor) -> Tensor:
        return photos + 1 / 255


class MeanRuler:
    """A person is a mean grey value; pictures brighter than a limit have no face."""

    def person(self, picture: Tensor) -> Tensor | None:
        return None if float(picture.mean()) > 0.55 else picture.mean()[None]

    def likeness(self, picture: Tensor, person: Tensor) -> float:
        found = self.person(picture)
        return math.nan if found is None else 1.0 - float((found - person).abs())


def test_clip_scores_of_a_known_generator() -> None:
    photos = torch.full((2, 3, SIDE, SIDE), 0.4)
    photos[1] = 0.5
    rows = clip_scores(Brightening(), photos, MeanRuler())  # type: ignore[arg-type]
    found = {row.score: list(row.values) for row in rows}
    by_start = {score.split(" (")[0]: values for score, values in found.items()}
    decibels = 20 * math.log10(255)
    assert by_start["autoencoder PSNR"][0] == pytest.approx(decibels, abs=0.01)
    frames = by_start["face similarity of each frame to photo"]
    # The last frame of the second photo is too bright to count; it is left out of the mean.
    assert frames == pytest.approx([1.0, 1 - 10 / 255, 1 - 20 / 255], abs=1e-4)
    assert by_start["frames in which a face is found"][0] == pytest.approx(100 * 5 / 6)
    assert "(5 of 6)" in next(score for score in found if "is found" in score)
    moved = by_start["mean change of later frames against the first"]
    assert moved == pytest.approx([10.0, 20.0], abs=1e-3)


def test_a_row_of_the_table() -> None:
    row = Measured(score="motion", values=[1.26, 2.0], digits=1, unit="grey levels")
    assert str(row) == "| motion | 1.3, 2.0 grey levels |"


def test_families_are_told_by_their_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_index.json"):
        family_of(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {}\n")
    assert family_of(tmp_path) == "dynamicrafter"
    (tmp_path / "model_index.json").write_text("{}\n")
    assert family_of(tmp_path) == "cogvideox"


def test_photos_are_centre_squares_in_name_order(tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 32), (0, 0, 0))
    wide.paste((255, 255, 255), (32, 0, 64, 32))
    wide.save(tmp_path / "a.jpg", quality=95)
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / "b.jpg", quality=95)
    found = squares(tmp_path, 2, (16, 16))
    assert found.shape == (2, 3, 16, 16)
    assert float(found[0].min()) > 0.9
    assert float(found[1, 0].mean()) > 0.95 > 0.05 > float(found[1, 2].mean())
    with pytest.raises(ValueError, match="expected 3 pictures"):
        squares(tmp_path, 3, (16, 16))


def test_swapped_tokens_are_those_of_the_photo_before() -> None:
    swapped = model_card._Neighbours(nn.Identity())
    assert torch.equal(swapped(torch.arange(3.0)), torch.tensor([2.0, 0.0, 1.0]))


def test_a_folder_of_neither_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        main([str(tmp_path), "--data", str(tmp_path)])
