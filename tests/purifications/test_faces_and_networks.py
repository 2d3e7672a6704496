"""Crops around faces, and the stacks of named networks, against Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.face_crop import FaceCrop
from anti_i2v_lit.purifications.social_network import NETWORKS

FACE = (0.36, 0.12, 0.56, 0.32)  # of the whole astronaut


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255.0


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def to_pillow(photo: Tensor) -> Image.Image:
    return Image.fromarray((photo[0] * 255).round().byte().permute(1, 2, 0).numpy())


def levels_apart(found: Tensor, image: Image.Image) -> float:
    return float(np.abs(found[0].permute(1, 2, 0).numpy() * 255 - np.asarray(image)).mean())


def test_a_face_crop_is_pillows_box(photo: Tensor) -> None:
    found = PURIFICATIONS.build({"name": "face_crop"}).purify(photo, 1.0, seeded(), faces=[FACE])
    # 0.2 / 0.6 of the side around (0.46, 0.22), and not beyond the border.
    box = tuple(512 * edge for edge in (0.46 - 1 / 6, 0.22 - 1 / 6, 0.46 + 1 / 6, 0.22 + 1 / 6))
    expected = to_pillow(photo).resize((512, 512), Image.Resampling.BICUBIC, box=box)
    assert levels_apart(found, expected) < 0.6


@pytest.mark.parametrize("face", [FACE, (0.0, 0.8, 0.1, 1.0), (0.1, 0.0, 0.9, 1.0), None])
@pytest.mark.parametrize("severity", [0.1, 0.5, 1.0])
def test_windows_hold_the_face_inside_the_photo(
    face: tuple[float, float, float, float] | None, severity: float
) -> None:
    left, top, right, bottom = FaceCrop(FaceCrop.Config()).window(face, severity)
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    assert right - left == pytest.approx(bottom - top)
    x, y, far_x, far_y = face or (1 / 3, 1 / 3, 2 / 3, 2 / 3)
    if max(far_x - x, far_y - y) < 0.9:
        assert left <= x + 1e-9 and right >= far_x - 1e-9
        assert top <= y + 1e-9 and bottom >= far_y - 1e-9


def test_every_photo_gets_its_own_face(photo: Tensor) -> None:
    purification = PURIFICATIONS.build({"name": "face_crop"})
    both = torch.cat((photo, photo))
    found = purification.purify(both, 0.8, seeded(), faces=[FACE, None])
    torch.testing.assert_close(found[:1], purification.purify(photo, 0.8, seeded(), faces=[FACE]))
    torch.testing.assert_close(found[1:], purification.purify(photo, 0.8, seeded()))


def test_other_purifications_ignore_faces(photo: Tensor) -> None:
    blur = PURIFICATIONS.build({"name": "blur"})
    with_faces = blur.purify(photo, 0.5, seeded(), faces=[FACE])
    assert torch.equal(with_faces, blur.purify(photo, 0.5, seeded()))


def test_boxes_are_checked(photo: Tensor) -> None:
    purification = PURIFICATIONS.build({"name": "face_crop"})
    with pytest.raises(ValueError, match="one box or None per photo, got 2 for 1"):
        purification.purify(photo, 0.5, seeded(), faces=[FACE, FACE])
    with pytest.raises(ValueError, match="box: expected"):
        purification.purify(photo, 0.5, seeded(), faces=[(0.5, 0.5, 0.4, 0.9)])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_at_full_severity_is_its_size_and_quality(name: str, photo: Tensor) -> None:
    """On a strip that is larger than the limit along one side only."""
    network = NETWORKS[name]
    large = torch.nn.functional.interpolate(
        photo[..., 100:108, :], size=(16, network.max_width_px + 160), mode="bilinear"
    )
    found = PURIFICATIONS.build({"name": "social_network", "network": name}).purify(
        large, 1.0, seeded()
    )
    height = round(16 * network.max_width_px / large.shape[-1])
    shrunk = to_pillow(large).resize((network.max_width_px, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    shrunk.save(file, "JPEG", quality=network.quality, subsampling=network.subsampling)
    size = (large.shape[-1], 16)
    assert levels_apart(found, Image.open(file).resize(size, Image.Resampling.BICUBIC)) < 1.5


def test_a_photo_within_the_limit_is_only_saved(photo: Tensor) -> None:
    found = PURIFICATIONS.build({"name": "social_network", "network": "x"}).purify(
        photo, 1.0, seeded()
    )
    saved = PURIFICATIONS.build({"name": "jpeg", "lowest_quality": 85}).purify(photo, 1.0, seeded())
    assert torch.equal(found, saved)


def test_networks_say_where_their_numbers_come_from() -> None:
    assert {"facebook", "instagram", "x", "whatsapp", "telegram"} <= set(NETWORKS)
    for network in NETWORKS.values():
        assert "20" in network.source and len(network.source) > 40
    with pytest.raises(ValueError, match="Did you mean 'instagram'"):
        PURIFICATIONS.build({"name": "social_network", "network": "instagramm"})
