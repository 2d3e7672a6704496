"""The JPEG emulation against Pillow's encoder."""

import io

import kornia.enhance
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from anti_i2v_lit.ops.jpeg import jpeg_emulated, jpeg_saved, quantisation_tables

SUBSAMPLINGS = ["4:2:0", "4:4:4"]


@pytest.fixture(scope="module")
def photos():
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255.0
    return torch.cat((image[..., :251, :333], image[..., 200:451, 150:483]))


def levels_apart(first, second):
    return ((first - second).abs() * 255).mean().item()


def pillow_round_trip(photo, quality, subsampling):
    file = io.BytesIO()
    pixels = (photo * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_tables_are_those_that_pillow_writes(photos, quality):
    written = pillow_round_trip(photos[0], quality, "4:2:0").quantization
    for found, expected in zip(quantisation_tables(quality), written.values(), strict=True):
        assert found.int().flatten().tolist() == list(expected)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [10, 50, 75, 95, 100])
def test_emulation_agrees_with_pillow_on_odd_sizes(photos, quality, subsampling):
    emulated = jpeg_emulated(photos, quality, subsampling)
    real = jpeg_saved(photos, quality, subsampling)
    # What is left: integer arithmetic rounds single values and coefficients the other way.
    assert levels_apart(emulated, real) < 0.2 + 0.2 * levels_apart(real, photos)


@pytest.mark.parametrize("quality", [50, 75])
def test_emulation_is_closer_to_pillow_than_kornia(photos, quality):
    real = jpeg_saved(photos, quality, "4:2:0")
    other = kornia.enhance.jpeg_codec_differentiable(photos, torch.tensor([float(quality)]))
    emulated = jpeg_emulated(photos, quality, "4:2:0")
    assert levels_apart(emulated, real) < 0.6 * levels_apart(other, real)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_the_real_codec_returns_pillows_pixels(photos, subsampling):
    found = (jpeg_saved(photos, 75, subsampling) * 255).round().byte()
    for index, photo in enumerate(photos):
        expected = np.asarray(pillow_round_trip(photo, 75, subsampling))
        assert np.array_equal(found[index].permute(1, 2, 0).numpy(), expected)


def test_chroma_subsampling_is_the_only_difference_between_the_two_modes():
    grey = torch.rand(1, 1, 48, 40, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1, 1)
    assert torch.equal(jpeg_emulated(grey, 75, "4:2:0"), jpeg_emulated(grey, 75, "4:4:4"))
    red = torch.zeros(1, 3, 48, 40)
    red[:, 0, :, ::2] = 1.0
    assert not torch.equal(jpeg_emulated(red, 75, "4:2:0"), jpeg_emulated(red, 75, "4:4:4"))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_gradient_is_the_linear_part_of_the_codec(photos, subsampling):
    """At quality 100 rounding is small, so a large central difference must agree."""
    photo = photos[:1, :, 40:72, 60:92].clamp(0.3, 0.7)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(photo.shape, generator=generator) * 0.05
    weights = direction + 0.02 * torch.randn(photo.shape, generator=generator)
    leaf = photo.clone().requires_grad_()
    loss = (jpeg_emulated(leaf, 100, subsampling) * weights).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    up, down = (jpeg_saved(photo + s * direction, 100, subsampling) for s in (1, -1))
    measured = ((up - down) * weights).sum() / 2
    assert (gradient * direction).sum().item() == pytest.approx(measured.item(), rel=0.05)


@pytest.mark.parametrize("codec", [jpeg_emulated, jpeg_saved])
def test_output_is_8bit_in_range_and_batch_independent(photos, codec):
    both = codec(photos, 60)
    assert both.min() >= 0 and both.max() <= 1
    assert torch.equal((both * 255).round() / 255, both)
    assert torch.equal(both, torch.cat([codec(p[None], 60) for p in photos]))


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (16, 16)])
def test_tiny_images_survive(size):
    photo = torch.full((1, 3, *size), 0.5)
    assert levels_apart(jpeg_emulated(photo, 75), jpeg_saved(photo, 75)) <= 1


def test_settings_that_no_encoder_takes_are_refused(photos):
    with pytest.raises(ValueError, match="JPEG quality must be between 1 and 100, got 0"):
        jpeg_emulated(photos, 0)
    with pytest.raises(ValueError, match="unknown chroma subsampling '4:2:2'"):
        jpeg_saved(photos, 75, "4:2:2")
