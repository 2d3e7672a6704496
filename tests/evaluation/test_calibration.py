"""Thresholds, limits and noise against scikit-learn-free arithmetic and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from anti_i2v_lit.evaluation.calibration import equal_error, outer_bound
from anti_i2v_lit.evaluation.equal_noise import equal_noise


def test_the_threshold_separates_what_can_be_separated() -> None:
    cut, error = equal_error([0.5, 0.6, 0.9], [-0.1, 0.1, 0.2])
    assert cut == pytest.approx(0.35) and error == 0


def test_errors_are_equal_for_two_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    own, others = rng.normal(0.6, 0.1, 4000), rng.normal(0.0, 0.2, 4000)
    cut, error = equal_error(own, others)
    # The exact solution: (cut - 0.6) / 0.1 = -(cut - 0) / 0.2
    assert cut == pytest.approx(0.4, abs=0.02)
    assert error == pytest.approx(stats.norm.sf(2), abs=0.006)
    assert np.mean(own < cut) == pytest.approx(np.mean(others >= cut), abs=0.003)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        equal_error([], [0.1])


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_a_new_value_exceeds_the_bound_as_rarely_as_promised(count: int) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.normal(3.0, 2.0, (1500, count + 1))
    exceeded = [row[-1] > outer_bound(list(row[:-1]), 0.05) for row in drawn]
    assert np.mean(exceeded) < 0.065
    if count >= 8:
        assert np.mean(exceeded) > 0.02


def test_the_bound_covers_what_was_seen_and_is_undefined_for_one_value() -> None:
    assert outer_bound([0.0] * 30 + [9.0], 0.01) >= 9.0
    assert math.isnan(outer_bound([1.0], 0.05)) and math.isnan(outer_bound([], 0.05))


def shrunk(picture: torch.Tensor, size: tuple[int, int] = (24, 24)) -> torch.Tensor:
    """What a generator sees of the middle, by PyTorch's own antialiased resize."""
    middle = picture[:, :, 15:105] if picture.shape[-1] == 120 else picture
    return torch.nn.functional.interpolate(
        middle[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[0]


@pytest.mark.parametrize(("level", "rms"), [(0.5, 6.0), (0.03, 4.0), (0.98, 10.0), (0.5, 0.0)])
def test_noise_changes_the_view_as_much_as_the_cloak_does(level: float, rms: float) -> None:
    photo = (torch.full((3, 90, 120), level) * 255).round() / 255
    waves = torch.linspace(0, 12, 90).sin()[:, None].expand(90, 120)
    inward = 1.0 if level < 0.5 else -1.0
    cloak = ((photo + inward * rms / 255 * waves.abs()) * 255).round() / 255
    noisy = equal_noise(photo, cloak, view_size=(24, 24), look=shrunk, key="a", purpose="noise")
    wanted = (shrunk(cloak) - shrunk(photo)).square().mean().sqrt().item() * 255
    made = (shrunk(noisy) - shrunk(photo)).square().mean().sqrt().item() * 255
    assert made == pytest.approx(wanted, rel=0.05, abs=0.01)
    assert (wanted == 0) == (rms == 0)
    assert torch.equal((noisy * 255).round() / 255, noisy)
    assert noisy.min() >= 0 and noisy.max() <= 1


def test_noise_depends_on_photo_and_purpose_alone() -> None:
    photo = torch.full((3, 32, 32), 0.5)
    cloak = photo + 5 / 255

    def made(key: str, purpose: str) -> torch.Tensor:
        return equal_noise(
            photo,
            cloak,
            view_size=(16, 16),
            look=lambda picture: shrunk(picture, (16, 16)),
            key=key,
            purpose=purpose,
        )

    assert torch.equal(made("a", "x"), made("a", "x"))
    assert not torch.equal(made("a", "x"), made("b", "x"))
    assert not torch.equal(made("a", "x"), made("a", "y"))
    # Drawn at 16 pixels and enlarged, it survives a resize to 16 pixels; white noise would not.
    small = torch.nn.functional.avg_pool2d(made("a", "x") - photo, 2)
    assert small.std() > 0.8 * (made("a", "x") - photo).std()
