"""CLIB-FIQA's arithmetic against its published steps, on a small random CLIP."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from anti_i2v_lit.metrics import face_quality
from anti_i2v_lit.metrics.availability import missing
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.face_quality import ClibFiqa, FaceQuality, sentences
from anti_i2v_lit.metrics.hse_face import HseFace


@pytest.fixture(scope="module")
def model() -> CLIP:
    """CLIP with a ResNet of one block per stage and a text tower of one layer."""
    torch.manual_seed(0)
    network = CLIP(
        embed_dim=16,
        vision_cfg={"layers": [1, 1, 1, 1], "width": 8, "image_size": 224, "head_width": 64},
        text_cfg={"width": 16, "heads": 2, "layers": 1},
        quick_gelu=True,
    )
    return network.requires_grad_(False).eval()


def faces(count: int) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_quality_equals_the_published_steps(model: CLIP) -> None:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    tokens = open_clip.tokenize(sentences())
    assert tokens.shape[0] == 360
    with torch.no_grad():
        images, texts, scale = model((faces(2) - mean) / std, tokens)
    shares = (scale * images @ texts.T).softmax(dim=1).view(-1, 3, 2, 3, 2, 2, 5)
    per_quality = shares.sum(1).sum(1).sum(1).sum(1).sum(1)
    expected = (per_quality * torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])).sum(dim=1)
    found = ClibFiqa(model, open_clip.tokenize).quality(faces(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.std() > 1e-6


def test_the_sentences_are_the_published_ones() -> None:
    first = "a photo of a hazy, obstructed, and profile face with exaggerated expression under "
    assert sentences()[0] == first + "extreme lighting, which is of bad quality"
    assert sentences()[1] == first + "extreme lighting, which is of poor quality"
    assert sentences()[5] == first + "normal lighting, which is of bad quality"


def test_only_frames_with_a_face_have_a_value(
    model: CLIP, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Tensor] = []

    class Spy(ClibFiqa):
        def quality(self, faces: Tensor) -> Tensor:
            seen.append(faces)
            return super().quality(faces)

    spy = Spy(model, open_clip.tokenize)
    monkeypatch.setattr(face_quality, "shared_clib", lambda path: spy)
    (tmp_path / "net.pth").touch()
    metric = FaceQuality(FaceQuality.Config(weights=str(tmp_path / "net.pth")))
    frames = faces(3)
    points = torch.tensor(HseFace.template).repeat(3, 1, 1)
    points[1] = torch.nan
    subject = GeneratedClip(key="a", photo=frames[0], frames=frames, frame_landmarks=points)
    values = metric.per_frame(subject)
    assert values.isnan().tolist() == [False, True, False]
    # Landmarks that lie on the template already: the crop is the frame.
    torch.testing.assert_close(seen[0], frames[[0, 2]], atol=1e-3, rtol=0)
    assert math.isfinite(metric.score(subject))


def test_a_file_is_read_strictly(
    model: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing({"name": "face_quality"}, tmp_path)[0].name == "CLIB-FIQA_R50.pth"
    built: list[str] = []
    monkeypatch.setattr(open_clip, "create_model", lambda n: built.append(n) or deepcopy(model))
    state = {f"module.{name}": tensor + 0 for name, tensor in model.state_dict().items()}
    state["module.logit_scale"] = torch.tensor(1.0)
    torch.save(state, tmp_path / "whole.pth")
    loaded = face_quality.shared_clib(str(tmp_path / "whole.pth"))
    assert built == ["RN50-quickgelu"] and loaded._model.logit_scale == 1
    torch.save({"module.logit_scale": torch.ones(())}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="lacks .* tensors of RN50-quickgelu"):
        face_quality.shared_clib(str(tmp_path / "net.pth"))
