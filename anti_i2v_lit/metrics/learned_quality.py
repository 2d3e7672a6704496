"""Quality of frames and clips by networks of the library pyiqa: MUSIQ and Q-Align."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anti_i2v_lit.metrics.base import GeneratedClip, Metric
from anti_i2v_lit.metrics.blind_quality import BlindConfig
from anti_i2v_lit.metrics.frames import FrameMetric
from anti_i2v_lit.metrics.requirements import CudaDevice, OptionalPackage, WeightsFile

BATCH = 8  # frames per call
PYIQA = OptionalPackage(name="pyiqa", how_to_get="pip install 'anti-i2v-lit[iqa]'")
CUDA = CudaDevice()
MUSIQ_WEIGHTS = WeightsFile(
    name="musiq_koniq_ckpt-e95806b9.pth",
    how_to_get=(
        "It is pyiqa's copy of the published weights: on a machine with a network run 'hf "
        "download chaofengc/IQA-PyTorch-Weights musiq_koniq_ckpt-e95806b9.pth --local-dir .' and "
        "put it into the folder of weights, or set weights=FILE"
    ),
)
Q_ALIGN_WEIGHTS = WeightsFile(
    name="q-future/one-align",
    how_to_get=(
        "It is a language model of 16 GB: on a machine with a network "
        "run 'hf download q-future/one-align --local-dir q-future/one-align' and put the folder "
        "q-future into the folder of weights, or set weights=FOLDER/q-future/one-align"
    ),
)


class Musiq(FrameMetric):
    """MUSIQ of frames (trained on KonIQ-10k): 0 for bad to 100 for excellent."""

    Config = BlindConfig
    direction, unit = "lower", "opinion score (0 to 100)"
    source = "Ke et al., MUSIQ: Multi-scale image quality transformer, ICCV 2021, as in pyiqa"
    needs = (MUSIQ_WEIGHTS, PYIQA)

    def __init__(self, config: BlindConfig) -> None:
        super().__init__(config)
        path = MUSIQ_WEIGHTS.require(config.weights)
        self._network = [_musiq(str(path))]  # in a list, so that its weights are not ours

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        network = self._network[0].to(subject.frames.device)
        scores = [network(batch).flatten() for batch in subject.frames.split(BATCH)]
        return torch.cat(scores)


class QAlignFrames(FrameMetric):
    """Q-Align of frames, as pictures: 1 for bad to 5 for excellent."""

    Config = BlindConfig
    direction, unit = "lower", "opinion score (1 to 5)"
    source = "Wu et al., Q-Align, ICML 2024, one-align, task quality, input image, as in pyiqa"
    needs = (Q_ALIGN_WEIGHTS, PYIQA, CUDA)

    def __init__(self, config: BlindConfig) -> None:
        super().__init__(config)
        self._model = [_q_align(str(Q_ALIGN_WEIGHTS.require(config.weights)))]

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        pictures = _pictures(subject.frames)
        scores = [self._model[0].score([picture], "quality", "image") for picture in pictures]
        return torch.cat(scores).float()


class QAlignVideo(Metric[GeneratedClip]):
    """Q-Align of a clip as a whole, all its frames: 1 for bad to 5 for excellent."""

    Config = BlindConfig
    direction, unit = "lower", "opinion score (1 to 5)"
    source = "Wu et al., Q-Align, ICML 2024, one-align, task quality, input video, as in pyiqa"
    needs = (Q_ALIGN_WEIGHTS, PYIQA, CUDA)

    def __init__(self, config: BlindConfig) -> None:
        super().__init__()
        self._model = [_q_align(str(Q_ALIGN_WEIGHTS.require(config.weights)))]

    def _score(self, subject: GeneratedClip) -> float:
        return float(self._model[0].score([_pictures(subject.frames)], "quality", "video").item())


def _require_pyiqa() -> None:
    if not PYIQA.is_here:
        raise ValueError(f"MUSIQ and Q-Align need the package pyiqa: {PYIQA.how_to_get}")


@functools.lru_cache(maxsize=1)
def _musiq(path: str) -> Any:
    """The frozen network.

    Raises:
        ValueError: pyiqa is not installed, or the file does not fit.
    """
    _require_pyiqa()
    from pyiqa.archs.musiq_arch import MUSIQ

    network = MUSIQ(pretrained=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"weights: {path} is no MUSIQ for KonIQ-10k: {str(error).splitlines()[0]}"
        ) from error
    return network.requires_grad_(False).eval()


@functools.lru_cache(maxsize=1)
def _q_align(folder: str) -> Any:
    """The language model in float16, on the CUDA device.

    Raises:
        ValueError: pyiqa is not installed, or a folder of another name.
    """
    _require_pyiqa()
    path = Path(folder).resolve()
    if path.parts[-2:] != tuple(Q_ALIGN_WEIGHTS.name.split("/")):
        raise ValueError(f"weights: expected a folder {Q_ALIGN_WEIGHTS.name}, got {folder}")
    from pyiqa.archs.q_align.modeling_mplug_owl2 import MPLUGOwl2LlamaForCausalLM

    # pyiqa asks for "q-future/one-align", which is the folder if looked up from two levels above.
    with contextlib.chdir(path.parents[1]):
        model = MPLUGOwl2LlamaForCausalLM.from_pretrained(
            Q_ALIGN_WEIGHTS.name, dtype=torch.float16, local_files_only=True
        )
    return model.requires_grad_(False).eval().cuda()


def _pictures(frames: Tensor) -> list[Any]:
    """Frames [T, 3, H, W] in [0, 1] as Pillow images."""
    from torchvision.transforms.functional import to_pil_image

    return [to_pil_image((255 * frame).round().byte().cpu()) for frame in frames]
