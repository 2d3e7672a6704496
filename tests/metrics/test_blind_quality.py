"""BRISQUE and NIQE against the numbers of the packages that their parameters come from."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import gamma as scipy_gamma
from scipy.stats import gennorm
from skimage.data import astronaut, coffee

from anti_i2v_lit.metrics.availability import build_metric
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.natural_scenes import asymmetric_gaussians, gamma

# brisque 0.2.0, BRISQUE().score, with scikit-image 0.26.0, opencv-python-headless 5.0.0.93; its
# one-element arrays were made numbers, which NumPy 2.4 asks for.
BRISQUE = {"clean": -12.3881, "noisy": 54.3942, "blurred": 56.0560, "coffee": 4.6144}
# scikit-video 1.1.11, skvideo.measure.niqe of 0.299 R + 0.587 G + 0.114 B; `np.int` and
# `scipy.misc.imresize` (Pillow's bicubic resize in mode F) were put back for it.
NIQE = {"clean": 14.05335, "noisy": 20.13307, "blurred": 25.84687, "coffee": 41.68551}


def pictures() -> dict[str, np.ndarray]:
    clean = astronaut()[:288, 100:388]
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    return {
        "clean": clean,
        "noisy": (clean + noise).clip(0, 255).astype(np.uint8),
        "blurred": gaussian_filter(clean, (2, 2, 0)),
        "coffee": coffee()[50:250, 100:330],
    }


def clip(*frames: np.ndarray) -> GeneratedClip:
    tensor = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    return GeneratedClip(key="a", photo=tensor[0], frames=tensor)


# scikit-video computes in float32, which nine patches of a blurred picture turn into 0.5 %.
@pytest.mark.parametrize(
    ("name", "expected", "tolerance"), [("brisque", BRISQUE, 1e-3), ("niqe", NIQE, 6e-3)]
)
def test_numbers_equal_those_of_the_packages(
    name: str, expected: dict[str, float], tolerance: float, real_data: Path
) -> None:
    metric = build_metric({"name": name}, real_data / "models")
    images = pictures()
    together = metric.per_frame(clip(*(images[k] for k in ("clean", "noisy", "blurred"))))
    found = dict(zip(("clean", "noisy", "blurred"), together.tolist(), strict=True))
    found["coffee"] = metric.score(clip(images["coffee"]))
    assert found == pytest.approx(expected, rel=tolerance, abs=0.02)


def test_frames_too_small_for_niqe_are_undefined(real_data: Path) -> None:
    metric = build_metric({"name": "niqe"}, real_data / "models")
    assert math.isnan(metric.score(clip(pictures()["clean"][:193])))


def test_a_flat_frame_has_a_brisque(real_data: Path) -> None:
    metric = build_metric({"name": "brisque"}, real_data / "models")
    assert math.isfinite(metric.score(clip(np.full((64, 64, 3), 128, np.uint8))))


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_shapes_and_sides_of_drawn_samples_are_found(shape: float) -> None:
    drawn = gennorm.rvs(shape, size=200_000, random_state=0)
    skewed = np.where(drawn < 0, drawn, 2 * drawn)
    rms = math.sqrt(scipy_gamma(3 / shape) / scipy_gamma(1 / shape))
    found = asymmetric_gaussians(torch.from_numpy(np.stack([drawn, skewed])))
    # The fit assumes the sides in proportion to their widths, so only the even one has its shape.
    assert found[0][0].item() == pytest.approx(shape, rel=0.03)
    assert found[1].tolist() == pytest.approx([rms, rms], rel=0.02)
    assert found[2].tolist() == pytest.approx([rms, 2 * rms], rel=0.02)


def test_gamma_equals_scipy() -> None:
    x = torch.linspace(0.05, 20, 50, dtype=torch.float64)
    np.testing.assert_allclose(gamma(x), scipy_gamma(x.numpy()), rtol=1e-10)


def test_other_files_are_refused(tmp_path: Path, real_data: Path) -> None:
    svm = tmp_path / "brisque_svm.txt"
    svm.write_bytes((real_data / "models" / "brisque_svm.txt").read_bytes())
    with pytest.raises(ValueError, match="brisque_normalize.pickle beside"):
        build_metric({"name": "brisque", "weights": str(svm)})
    (tmp_path / "brisque_normalize.pickle").write_bytes(pickle.dumps(Path("harmful")))
    with pytest.raises(ValueError, match="a pickle of plain numbers"):
        build_metric({"name": "brisque", "weights": str(svm)})
    svm.write_text("kernel_type linear\nSV\n1 1:1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="with a radial kernel"):
        build_metric({"name": "brisque", "weights": str(svm)})
    from scipy.io import savemat

    savemat(tmp_path / "params.mat", {"mu_prisparam": np.zeros(36)})
    with pytest.raises(ValueError, match="pop_mu and pop_cov, got"):
        build_metric({"name": "niqe", "weights": str(tmp_path / "params.mat")})
