"""Fidelity and motion of clips against NumPy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import metrics
from skimage.data import astronaut

from anti_i2v_lit.backbones.lpips_net import load_lpips
from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.imperceptibility import lpips_of

PHOTO = astronaut()[40:168, 160:288]


def clip() -> tuple[np.ndarray, GeneratedClip]:
    """Three frames that drift away from the photo."""
    rng = np.random.default_rng(0)
    frames = np.stack(
        [
            np.clip(PHOTO + rng.integers(-level, level + 1, PHOTO.shape), 0, 255)
            for level in (4, 20, 60)
        ]
    ).astype(np.uint8)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    photo = torch.from_numpy(PHOTO.copy()).permute(2, 0, 1).float() / 255
    return frames, GeneratedClip(key="a", photo=photo, frames=tensor)


@pytest.mark.parametrize(("choice", "indices"), [("all", [0, 1, 2]), ("first", [0]), ("last", [2])])
def test_psnr_and_ssim_equal_scikit_image_over_the_chosen_frames(
    choice: str, indices: list[int]
) -> None:
    frames, subject = clip()
    psnr = [metrics.peak_signal_noise_ratio(PHOTO, frames[i]) for i in indices]
    ssim = [
        metrics.structural_similarity(
            PHOTO, frames[i], channel_axis=-1, gaussian_weights=True,
            use_sample_covariance=False,
        )
        for i in indices
    ]  # fmt: skip
    for name, expected in (("photo_psnr", np.mean(psnr)), ("photo_ssim", np.mean(ssim))):
        metric = METRICS.build({"name": name, "frames": choice})
        metric.update([subject])
        assert metric.compute().item() == pytest.approx(expected, rel=1e-3)


def test_lpips_grows_from_the_first_to_the_last_frame() -> None:
    values = []
    for choice in ("first", "all", "last"):
        metric = METRICS.build({"name": "photo_lpips", "frames": choice})
        metric.update([clip()[1]])
        values.append(metric.compute().item())
    assert 0 < values[0] < values[1] < values[2]


def test_lpips_of_many_frames_is_that_of_each_alone() -> None:
    _, subject = clip()
    many = GeneratedClip(
        key="a", photo=subject.photo, frames=subject.frames[[0, 1, 2] * 6 + [0, 2]]
    )
    network = load_lpips()
    with torch.no_grad():
        alone = [lpips_of(frame, many.photo, network) for frame in many.frames]
    found = METRICS.build({"name": "photo_lpips"}).per_frame(many)
    assert found.tolist() == pytest.approx(alone, rel=1e-4)


def test_motion_is_the_mean_absolute_difference_in_grey_levels() -> None:
    frames, subject = clip()
    expected = np.abs(np.diff(frames.astype(float), axis=0)).mean()
    metric = METRICS.build({"name": "motion"})
    metric.update([subject])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-5)
    still = GeneratedClip(
        key="s", photo=subject.photo, frames=subject.frames[:1].repeat(4, 1, 1, 1)
    )
    metric.reset()
    metric.update([still])
    assert metric.compute().item() == 0


def test_a_photo_of_another_size_is_refused() -> None:
    _, subject = clip()
    other = GeneratedClip(key="a", photo=subject.photo[:, :-1], frames=subject.frames)
    with pytest.raises(ValueError, match="as the generator framed it"):
        METRICS.build({"name": "photo_psnr"}).update([other])


def test_motion_of_a_single_frame_is_refused() -> None:
    _, subject = clip()
    one = GeneratedClip(key="a", photo=subject.photo, frames=subject.frames[:1])
    with pytest.raises(ValueError, match="at least 2 frames"):
        METRICS.build({"name": "motion"}).update([one])
