"""Frechet distances of clips' features: FVD, and its kin with DINO features of frames."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.image_features import DINO_WEIGHTS, shared_dino, shorter_side
from anti_i2v_lit.metrics.requirements import WeightsFile
from anti_i2v_lit.metrics.sets import SetConfig, SetMetric

I3D_SIDE = 224  # pixels
I3D_MIN_FRAMES = 10  # fewer leave nothing after its temporal pooling
I3D_WEIGHTS = WeightsFile(
    name="i3d_torchscript.pt",
    how_to_get=(
        "It is the I3D network that StyleGAN-V publishes for FVD: on a machine with a network "
        "download https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1 (also in "
        "the Hugging Face repository flateon/FVD-I3D-torchscript) and put it into the folder of "
        "weights, or set weights=FILE"
    ),
)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of the normal distributions with two samples' moments.

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)), with unbiased covariances. The trace of the root
    is the nuclear norm of the product of the samples' triangular factors, which stays exact for
    fewer rows than columns.

    Args:
        first: [N, D] float64, N >= 2.
        second: [M, D] float64, M >= 2.
    """
    means = [x.mean(dim=0) for x in (first, second)]
    roots = [
        torch.linalg.qr((x - mean) / (len(x) - 1) ** 0.5, mode="r").R
        for x, mean in zip((first, second), means, strict=True)
    ]
    spread = sum(root.square().sum() for root in roots)
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = (means[0] - means[1]).square().sum() + spread - 2 * overlap
    return max(0.0, distance.item())


class FrechetVideo(SetMetric):
    """Frechet video distance (FVD): I3D features of clips of protected and of clean photos."""

    Config = SetConfig
    direction, unit = "higher", "squared feature distance"
    source = (
        "Unterthiner et al., FVD, 2018; I3D of StyleGAN-V (CVPR 2022), shorter side 224 pixels, "
        "centre crop"
    )
    needs = (I3D_WEIGHTS,)

    def __init__(self, config: SetConfig) -> None:
        super().__init__(config)
        self._network = _shared_i3d(str(I3D_WEIGHTS.require(config.weights)))

    def _features(self, subject: GeneratedClip) -> Tensor:
        frames = subject.frames
        if len(frames) < I3D_MIN_FRAMES:
            raise ValueError(
                f"{subject.key}: FVD needs clips of at least {I3D_MIN_FRAMES} frames, got "
                f"{len(frames)}"
            )
        square = center_crop(shorter_side(frames, I3D_SIDE, "bilinear"), [I3D_SIDE, I3D_SIDE])
        video = (2 * square - 1).transpose(0, 1)[None]
        network = self._network.to(frames.device)
        return network(video, rescale=False, resize=False, return_features=True).float()

    def _distance(self, judged: Tensor, reference: Tensor) -> float:
        return frechet_distance(judged, reference)


class FrechetDino(SetMetric):
    """Frechet distance of DINO features of all frames of clips of protected and clean photos."""

    Config = SetConfig
    direction, unit = "higher", "squared feature distance"
    source = (
        "Stein et al., Exposing flaws of generative model evaluation metrics, NeurIPS 2023 "
        "(there with DINOv2), class tokens, unscaled"
    )
    needs = (DINO_WEIGHTS,)

    def __init__(self, config: SetConfig) -> None:
        super().__init__(config)
        self._features_of = shared_dino(str(DINO_WEIGHTS.require(config.weights)))

    def _features(self, subject: GeneratedClip) -> Tensor:
        return self._features_of.tokens(subject.frames)

    def _distance(self, judged: Tensor, reference: Tensor) -> float:
        return frechet_distance(judged, reference)


@functools.lru_cache(maxsize=1)
def _shared_i3d(path: str) -> Any:
    """The scripted network, frozen.

    Raises:
        ValueError: the file is no TorchScript.
    """
    try:
        network = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"weights: {path} is no TorchScript file: {str(error).splitlines()[0]}"
        ) from error
    return network.eval()
