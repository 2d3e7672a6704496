"""The resize against Pillow, against finite differences, and its refusals."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from anti_i2v_lit.ops.resize import clamp_straight_through, crop_resize, resize

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
KERNELS = tuple(PILLOW)
SIZES = [(100, 161), (700, 600), (31, 900)]


def channel() -> np.ndarray:
    """One float32 channel, so that Pillow (mode F) does not round to 8 bits."""
    return astronaut()[:400, :, 0].astype(np.float32) / 255.0


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels)[None, None]


def pillow(pixels: np.ndarray, size: tuple[int, int], kernel: str, **options) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], PILLOW[kernel], **options))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_whole_image_equals_pillow(kernel, size):
    expected = pillow(channel(), size, kernel)
    whole = (0.0, 0.0, 1.0, 1.0)
    # PyTorch places its kernels in float32: a hundredth of a grey level off.
    plain = resize(as_batch(channel()), size, kernel)
    np.testing.assert_allclose(plain[0, 0].numpy(), expected, atol=5e-5)
    exact = crop_resize(as_batch(channel()), whole, size, kernel)
    np.testing.assert_allclose(exact[0, 0].numpy(), expected, atol=5e-6)
    # What carries a gradient takes the products, which repeat bit for bit on every device.
    moving = resize(as_batch(channel()).requires_grad_(), size, kernel)
    assert torch.equal(moving, exact) and "Upsample" not in type(moving.grad_fn).__name__


@pytest.mark.parametrize("kernel", KERNELS)
def test_crop_on_whole_pixels_equals_pillow_crop_then_resize(kernel):
    pixels = channel()
    left, top, right, bottom = 51, 40, 307, 381
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    box = (left / 512, top / 400, right / 512, bottom / 400)
    result = crop_resize(as_batch(pixels), box, (96, 130), kernel)
    np.testing.assert_allclose(result[0, 0].numpy(), pillow(cut, (96, 130), kernel), atol=2e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(90, 120), (500, 700)])
def test_fractional_crop_equals_pillow_away_from_the_edges(kernel, size):
    pixels = channel()
    box_px = (51.3, 40.7, 307.45, 381.25)
    box = tuple(v / s for v, s in zip(box_px, (512, 400, 512, 400), strict=True))
    result = crop_resize(as_batch(pixels), box, size, kernel)[0, 0].numpy()
    expected = pillow(pixels, size, kernel, box=box_px)
    # Pillow's kernel reaches over the box's edge; a crop cannot. Two input pixels, or two output
    # ones when shrinking.
    edge = 2 * max(1, round(max(size) / 256)) + 2
    inner = (slice(edge, -edge), slice(edge, -edge))
    np.testing.assert_allclose(result[inner], expected[inner], atol=2e-5)


ODD_AND_EVEN = [41, 61, 64, 67, 100, 127, 1023]


@pytest.mark.parametrize("side", ODD_AND_EVEN)
@pytest.mark.parametrize("share", [0.3, 0.5, 2 / 3, 1.5, 2.0])
@pytest.mark.parametrize("kernel", ["box", "lanczos"])
def test_every_row_equals_pillow_at_odd_and_even_sizes(
    kernel: str, side: int, share: float
) -> None:
    pixels = np.random.default_rng(side).random((side, 8), np.float32)
    filters = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
    for rows in (int(side * share), int(side * share) + 1):
        expected = np.asarray(Image.fromarray(pixels).resize((8, rows), filters[kernel]))
        result = resize(as_batch(pixels), (rows, 8), kernel)[0, 0].numpy()
        np.testing.assert_allclose(result, expected, atol=2e-6)


def test_strong_downscaling_averages():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (64, 2000))
    for result in (
        resize(as_batch(stripes), (16, 256)),
        crop_resize(as_batch(stripes), (0.0, 0.0, 1.0, 1.0), (16, 256)),
    ):
        assert (result - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(3, 4), (9, 11)])
def test_gradients(kernel, size):
    images = torch.rand(2, 3, 7, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, size, kernel), images)
    box = (0.13, 0.0, 0.77, 0.91)
    assert torch.autograd.gradcheck(lambda x: crop_resize(x, box, size, kernel), images)


def test_autocast_does_not_cut_precision():
    images = as_batch(channel())
    box = (0.1, 0.1, 0.7, 0.9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crop_resize(images, box, (64, 64))
    assert torch.equal(inside, crop_resize(images, box, (64, 64)))


def test_straight_through_clamps_exactly_and_keeps_the_gradient():
    images = torch.linspace(-0.7, 1.7, 4001).requires_grad_()
    result = clamp_straight_through(images)
    assert torch.equal(result, images.detach().clamp(0, 1))
    (gradient,) = torch.autograd.grad(result.sum(), images)
    assert torch.equal(gradient, torch.ones_like(images))


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.01), (0, 0.6, 1, 0.5)]
)
def test_refuses_bad_boxes(box):
    with pytest.raises(ValueError, match="box"):
        crop_resize(torch.zeros(1, 3, 8, 8), box, (4, 4))


def test_refuses_bad_images_sizes_and_kernels():
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        resize(images[0], (4, 4))
    with pytest.raises(ValueError, match="floating point"):
        resize(images.byte(), (4, 4))
    with pytest.raises(ValueError, match="height"):
        resize(images, (0, 4))
    with pytest.raises(ValueError, match="Did you mean 'bicubic'"):
        resize(images, (4, 4), "bicubik")
