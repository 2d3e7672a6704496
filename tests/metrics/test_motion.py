"""Flow of pictures moved by a known amount, and what is measured with it."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, shift
from skimage.data import astronaut
from skimage.registration import optical_flow_ilk
from torch import Tensor

from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.optical_flow import (
    DisFlow,
    RaftFlow,
    is_visible,
    midpoint,
    warp,
)

STEP = (2.0, -1.0)  # pixels per frame, (x, y)


def moved(amounts: list[float]) -> Tensor:
    """128-pixel frames in which the whole picture moves by multiples of STEP."""
    return torch.stack([_moved(amount) for amount in amounts])


@functools.cache
def _moved(amount: float) -> Tensor:
    picture = astronaut()[24:224, 124:324] / 255
    frame = shift(picture, (amount * STEP[1], amount * STEP[0], 0), order=3)[36:164, 36:164]
    return torch.from_numpy(frame.clip(0, 1)).permute(2, 0, 1).float()


def clip(frames: Tensor) -> GeneratedClip:
    return GeneratedClip(key="a", photo=frames[0], frames=frames)


def score(name: str, frames: Tensor, **settings: str) -> float:
    return METRICS.build({"name": name, **settings}).score(clip(frames))


STEADY = [0.0, 1.0, 2.0, 3.0, 4.0]


def test_flow_of_a_translation_is_the_translation() -> None:
    frames = moved(STEADY[:3])
    flow = DisFlow().forward(frames)
    assert flow.shape == (2, 2, 128, 128)
    error = flow[..., 8:-8, 8:-8] - torch.tensor(STEP)[:, None, None]
    assert error.abs().mean() < 0.15
    back = DisFlow().backward(frames)
    assert (back[..., 8:-8, 8:-8] + torch.tensor(STEP)[:, None, None]).abs().mean() < 0.15


def test_flow_agrees_with_scikit_image_on_a_picture_that_grows() -> None:
    picture = moved([0.0])[0].mean(dim=0).numpy().astype(np.float64)
    rows, columns = np.mgrid[:128, :128]
    grown = map_coordinates(picture, [64 + (rows - 64) / 1.04, 64 + (columns - 64) / 1.04], order=3)
    pair = torch.from_numpy(np.stack([picture, grown]).clip(0, 1)).float()[:, None]
    found = DisFlow().forward(pair.expand(-1, 3, -1, -1))[0]
    expected = np.stack(optical_flow_ilk(picture, grown, radius=9)[::-1])
    gap = np.abs(found.numpy() - expected)[:, 16:-16, 16:-16]
    truth = np.stack([columns - 64, rows - 64])[:, 16:-16, 16:-16] * 0.04
    assert np.abs(truth).mean() > 0.8
    assert gap.mean() < 0.2
    assert np.abs(found.numpy()[:, 16:-16, 16:-16] - truth).mean() < 0.1


def test_warping_looks_up_what_scipy_looks_up() -> None:
    image = moved([0.0])
    flow = 4 * torch.rand(1, 2, 128, 128, generator=torch.Generator().manual_seed(0)) - 2
    rows, columns = np.mgrid[:128, :128]
    places = [rows + flow[0, 1].numpy(), columns + flow[0, 0].numpy()]
    expected = [map_coordinates(c.numpy(), places, order=1, mode="nearest") for c in image[0]]
    np.testing.assert_allclose(warp(image, flow)[0], np.stack(expected), atol=1e-5)


def test_the_frame_between_two_is_found() -> None:
    frames = moved([0.0, 1.0, 2.0])
    forth = torch.tensor(STEP)[None, :, None, None].expand(1, 2, 128, 128) * 2
    middle = midpoint(frames[:1], frames[2:], forth, -forth)
    blend = (frames[:1] + frames[2:]) / 2
    errors = [(x - frames[1:2])[..., 8:-8, 8:-8].abs().mean() for x in (middle, blend)]
    assert errors[0] < 1e-3 < 0.02 < errors[1]


def test_what_goes_behind_something_is_not_visible() -> None:
    """The left half stays, the right half moves left over it by 6 pixels."""
    forth, back = torch.zeros(1, 2, 40, 40), torch.zeros(1, 2, 40, 40)
    forth[:, 0, :, 20:] = -6
    back[:, 0, :, 14:34] = 6
    visible = is_visible(forth, back)[0]
    assert not visible[:, 14:20].any()
    assert visible[:, 2:12].all() and visible[:, 23:33].all()


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_amount_of_motion_is_its_length_over_the_shorter_side(factor: float) -> None:
    frames = moved([factor * a for a in STEADY])
    expected = 100 * factor * math.hypot(*STEP) / 128
    assert score("motion_amount", frames) == pytest.approx(expected, rel=0.15)
    values = METRICS.build({"name": "motion_amount"}).per_frame(clip(frames))
    assert values[0].isnan() and values[1:].isfinite().all()


def test_a_still_neither_moves_nor_flickers() -> None:
    frames = moved([0.0]).repeat(5, 1, 1, 1)
    assert score("motion_amount", frames) == pytest.approx(0, abs=1e-3)
    assert score("motion_smoothness", frames) == pytest.approx(1, abs=1e-4)
    assert score("warping_error", frames) == pytest.approx(0, abs=1e-6)
    assert score("flicker", frames) == 0


def test_steady_motion_is_smoother_than_jerks() -> None:
    steady, jerky = (
        score("motion_smoothness", moved(STEADY)),
        score("motion_smoothness", moved([0.0, 2.0, 2.0, 4.0, 4.0])),
    )
    assert steady > 0.985 and jerky < steady - 0.02
    values = METRICS.build({"name": "motion_smoothness"}).per_frame(clip(moved(STEADY)))
    assert values.isfinite().tolist() == [False, True, False, True, False]


def test_warping_error_ignores_motion_and_sees_brightness() -> None:
    frames = moved(STEADY) * 0.8
    still = score("warping_error", frames)
    pulsing = frames + 0.1 * (torch.arange(5) % 2)[:, None, None, None]
    assert still < 1e-3
    # Three channels change by 0.1 each.
    assert score("warping_error", pulsing) == pytest.approx(0.03, rel=0.15)


def test_flicker_is_vbench_s_on_a_still_clip_and_undefined_on_a_moving_one() -> None:
    frames = moved([0.0]).repeat(4, 1, 1, 1) * 0.9
    frames = frames + torch.tensor([0.0, 0.02, 0.0, 0.02])[:, None, None, None]
    grey = (frames * 255).numpy()
    score_of_vbench = (255 - np.abs(np.diff(grey, axis=0)).mean()) / 255
    assert score("flicker", frames) == pytest.approx(255 - 255 * score_of_vbench, rel=1e-4)
    assert math.isnan(score("flicker", moved([4 * a for a in STEADY])))


def test_frames_too_small_for_flow_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels"):
        score("motion_amount", moved(STEADY)[..., :20, :20])


def test_a_single_frame_is_undefined() -> None:
    for name in ("motion_amount", "motion_smoothness", "warping_error", "flicker"):
        assert math.isnan(score(name, moved([0.0])))


def test_raft_files_are_told_apart_and_frames_scaled(tmp_path: Path) -> None:
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    network = raft_small(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "raft_small.pth")
    flow = RaftFlow(tmp_path / "raft_small.pth")
    frames = moved([0.0, 1.0])
    with torch.no_grad():
        expected = network(2 * frames[:1] - 1, 2 * frames[1:] - 1, num_flow_updates=20)[-1]
    torch.testing.assert_close(flow.forward(frames), expected, atol=1e-4, rtol=1e-4)
    assert flow.between(frames[:1, :, :60, :90], frames[1:, :, :60, :90]).shape == (1, 2, 60, 90)
    torch.save({"no": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="is no RAFT of torchvision"):
        RaftFlow(tmp_path / "other.pth")
