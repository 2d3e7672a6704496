"""How good a face is for recognition: CLIB-FIQA, written out with open_clip."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.blind_quality import BlindConfig
from anti_i2v_lit.metrics.face_embedder import align_face
from anti_i2v_lit.metrics.frames import FrameMetric
from anti_i2v_lit.metrics.hse_face import HseFace
from anti_i2v_lit.metrics.identity import faces_in
from anti_i2v_lit.metrics.image_features import CLIP_MEAN, CLIP_STD, normalised
from anti_i2v_lit.metrics.requirements import WeightsFile

ARCHITECTURE = "RN50-quickgelu"
BATCH = 16  # faces per call
WEIGHTS = WeightsFile(
    name="CLIB-FIQA_R50.pth",
    how_to_get=(
        "It is on the Google Drive that https://github.com/oufuzhao/CLIB-FIQA links to (file "
        "18-Bkno_CWDaT9EA-FbnJ1oDcg1RDkPTt); put it into the folder of weights, or set "
        "weights=FILE"
    ),
)
# The factors of the published prompt, in its order; the qualities vary fastest.
FACTORS = (
    ("hazy", "blurry", "clear"),
    ("obstructed", "unobstructed"),
    ("profile", "slight angle", "frontal"),
    ("exaggerated expression", "typical expression"),
    ("extreme lighting", "normal lighting"),
    ("bad", "poor", "fair", "good", "perfect"),
)
QUALITIES = (0.1, 0.3, 0.5, 0.7, 0.9)


class FaceQuality(FrameMetric):
    """CLIB-FIQA: quality of the face for recognition, 0.1 for bad to 0.9 for perfect.

    Frames without a face have no value. Faces are aligned as for ArcFace, at 224 pixels.
    """

    Config = BlindConfig
    direction, unit = "lower", "quality (0.1 to 0.9)"
    source = "Ou et al., CLIB-FIQA: Face image quality assessment, CVPR 2024"
    needs = (WEIGHTS,)
    may_be_undefined = True

    def __init__(self, config: BlindConfig) -> None:
        super().__init__(config)
        self._network = [shared_clib(str(WEIGHTS.require(config.weights)))]

    def _score_frames(self, subject: GeneratedClip) -> Tensor:
        found = faces_in(subject).nonzero()[:, 0]
        values = torch.full((len(subject.frames),), torch.nan)
        if len(found):
            assert subject.frame_landmarks is not None
            template = torch.tensor(HseFace.template)
            crops = [
                align_face(subject.frames[i], subject.frame_landmarks[i], template, HseFace.crop_px)
                for i in found.tolist()
            ]
            values[found] = self._network[0].quality(torch.stack(crops)).cpu()
        return values


class ClibFiqa:
    """CLIP (ResNet-50) tuned on faces, asked with 360 sentences.

    Args:
        model: open_clip model with an image and a text tower.
        tokenizer: texts -> tokens for it.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        with torch.no_grad():
            self._texts = F.normalize(model.encode_text(tokenizer(sentences())), dim=-1)

    @torch.no_grad()
    def quality(self, faces: Tensor) -> Tensor:
        """Aligned faces [N, 3, 224, 224] in [0, 1] -> quality [N]."""
        model = self._model.to(faces.device)
        texts = self._texts.to(faces.device)
        parts = []
        for batch in faces.split(BATCH):
            images = F.normalize(model.encode_image(normalised(batch, CLIP_MEAN, CLIP_STD)), dim=-1)
            likely = (model.logit_scale.exp() * images @ texts.T).softmax(dim=-1)
            parts.append(likely.unflatten(1, (-1, len(QUALITIES))).sum(dim=1))
        return torch.cat(parts) @ faces.new_tensor(QUALITIES)


def sentences() -> list[str]:
    """The 360 published sentences, the quality varying fastest."""
    return [
        f"a photo of a {blur}, {cover}, and {pose} face with {mood} under {light}, which is of "
        f"{quality} quality"
        for blur, cover, pose, mood, light, quality in itertools.product(*FACTORS)
    ]


@functools.lru_cache(maxsize=1)
def shared_clib(path: str) -> ClibFiqa:
    """The one network of all metrics with the same weights.

    Raises:
        ValueError: the file does not hold all tensors of CLIP's ResNet-50.
    """
    import open_clip

    model = open_clip.create_model(ARCHITECTURE)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    state = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    wanted = model.state_dict()
    lacking = sorted(name for name in wanted if name not in state)
    if lacking:
        raise ValueError(
            f"weights: {path} lacks {len(lacking)} tensors of {ARCHITECTURE} "
            f"({', '.join(lacking[:3])} ...). {WEIGHTS.how_to_get}"
        )
    model.load_state_dict({name: state[name] for name in wanted})
    frozen = model.float().requires_grad_(False).eval()
    return ClibFiqa(frozen, open_clip.get_tokenizer(ARCHITECTURE))
