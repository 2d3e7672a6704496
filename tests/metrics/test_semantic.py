"""Features against transformers' own preprocessing and models; formulas against loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.data import astronaut, chelsea
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, Dinov2Model, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.image_features import ClipFeatures, DinoFeatures, shared_clip
from tests.metrics.stand_ins import write_clip, write_dinov2, write_vit

PICTURES = [astronaut()[:200, 100:340], astronaut()[40:240, 110:350], chelsea()[:200, :240]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "dino": write_vit(folder / "dino-vitb16"),
        "dinov2": write_dinov2(folder / "dinov2-base"),
        "clip": write_clip(folder / "clip-vit-base-patch32"),
    }


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def clip(**others: object) -> GeneratedClip:
    frames = torch.stack([tensor(picture) for picture in PICTURES])
    values = {"key": "a", "photo": frames[0], "frames": frames, **others}
    return GeneratedClip(**values)


def resized(pixels: np.ndarray, side: int, how: Image.Resampling) -> Tensor:
    """Pillow's antialiased resize to a shorter side."""
    factor = side / min(pixels.shape[:2])
    size = (int(pixels.shape[1] * factor), int(pixels.shape[0] * factor))
    return tensor(np.asarray(Image.fromarray(pixels).resize(size, how)))


@pytest.mark.parametrize("name", ["dino", "dinov2"])
def test_dino_features_equal_transformers(name: str, weights: dict[str, Path]) -> None:
    if name == "dino":
        model = ViTModel.from_pretrained(weights[name], add_pooling_layer=False)
        options = {"interpolate_pos_encoding": True}
    else:
        model, options = Dinov2Model.from_pretrained(weights[name]), {}
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    images = torch.stack([resized(p, 224, Image.Resampling.BILINEAR) for p in PICTURES])
    with torch.no_grad():
        tokens = model(pixel_values=(images - mean) / std, **options).last_hidden_state[:, 0]
    found = DinoFeatures(weights[name]).encode(clip().frames)
    # Pillow rounds to grey levels, we do not.
    assert F.cosine_similarity(found, tokens).min().item() > 0.9995
    between = F.cosine_similarity(tokens[0], tokens[2], dim=0)
    assert between < 0.98  # different pictures are told apart, or the line above says nothing
    assert (found[0] @ found[2]).item() == pytest.approx(between.item(), abs=3e-3)


def test_clip_features_equal_transformers(weights: dict[str, Path]) -> None:
    model = CLIPModel.from_pretrained(weights["clip"])
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=48)
    tokens = CLIPTokenizer.from_pretrained(weights["clip"])(
        ["a cat"], return_tensors="pt", padding=True
    )
    pixels = processor([Image.fromarray(p) for p in PICTURES], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values=pixels, **tokens)
    features = ClipFeatures(weights["clip"])
    found = features.encode(clip().frames)
    assert F.cosine_similarity(*expected.image_embeds[[0, 2]], dim=0) < 0.98
    assert F.cosine_similarity(found, expected.image_embeds).min().item() > 0.999
    torch.testing.assert_close(
        features.text("a cat"), F.normalize(expected.text_embeds, dim=-1)[0], atol=1e-5, rtol=1e-4
    )


def test_a_long_prompt_is_cut_off(weights: dict[str, Path]) -> None:
    features = ClipFeatures(weights["clip"])
    torch.testing.assert_close(features.text("a b " * 50), features.text("a b " * 60))


def test_photo_and_prompt_similarities_are_cosines(weights: dict[str, Path]) -> None:
    subject = clip(prompt="a person")
    features = shared_clip(str(weights["clip"]))
    frames, photo = features.encode(subject.frames), features.encode(subject.photo[None])
    for name, other in (("clip_i", photo), ("clip_t", features.text("a person")[None])):
        metric = METRICS.build({"name": name, "weights": str(weights["clip"])})
        expected = F.cosine_similarity(frames, other)
        torch.testing.assert_close(metric.per_frame(subject).float(), expected)
        assert metric.score(subject) == pytest.approx(expected.mean().item(), abs=1e-6)
    same = METRICS.build({"name": "clip_i", "weights": str(weights["clip"]), "frames": "first"})
    assert same.score(subject) == pytest.approx(1, abs=1e-5)


def test_subject_consistency_equals_vbench_loop(weights: dict[str, Path]) -> None:
    subject = clip()
    features = DinoFeatures(weights["dino"]).encode(subject.frames)
    total = 0.0
    for i in range(1, len(features)):
        first = max(0.0, F.cosine_similarity(features[0], features[i], dim=0).item())
        previous = max(0.0, F.cosine_similarity(features[i - 1], features[i], dim=0).item())
        total += (first + previous) / 2
    metric = METRICS.build({"name": "subject_consistency", "weights": str(weights["dino"])})
    assert metric.score(subject) == pytest.approx(total / 2, abs=1e-5)
    assert metric.per_frame(subject)[0].isnan()


def test_still_clips_are_consistent_and_a_clip_without_prompt_is_undefined(
    weights: dict[str, Path],
) -> None:
    frame = tensor(PICTURES[0])
    still = clip(frames=frame.repeat(3, 1, 1, 1), photo=frame)
    for name in ("subject_consistency", "dino_photo"):
        metric = METRICS.build({"name": name, "weights": str(weights["dino"])})
        assert metric.score(still) == pytest.approx(1, abs=1e-5)
    text = METRICS.build({"name": "clip_t", "weights": str(weights["clip"])})
    assert np.isnan(text.score(still))


def test_metrics_of_one_network_encode_a_clip_once(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = ClipFeatures._encode
    monkeypatch.setattr(
        ClipFeatures, "_encode", lambda self, x: seen.append(len(x)) or encode(self, x)
    )
    subject = clip(prompt="a cat", photo_key="p")
    for name in ("clip_i", "clip_t"):
        METRICS.build({"name": name, "weights": str(weights["clip"])}).update([subject])
    other = clip(prompt="a cat", photo_key="p", photo=subject.photo)
    METRICS.build({"name": "clip_i", "weights": str(weights["clip"])}).update([other])
    assert sorted(seen) == [1, 3, 3]


def test_other_models_and_broken_folders_are_refused(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected a folder of CLIP, got 'vit'"):
        ClipFeatures(weights["dino"])
    with pytest.raises(ValueError, match="got 'clip'"):
        DinoFeatures(weights["clip"])
    from safetensors.torch import load_file, save_file

    broken = write_vit(tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    dropped = next(name for name in tensors if "layernorm.weight" in name)
    del tensors[dropped]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 tensors of ViTModel"):
        DinoFeatures(broken)
