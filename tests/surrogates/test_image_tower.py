"""CLIP image towers: the values of transformers' own loading, and no converted copy in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from anti_i2v_lit.surrogates.image_tower import load_image_tower
from anti_i2v_lit.surrogates.sharding.scratch import ConvertedInFiles

CLASSES = [CLIPVisionModel, CLIPVisionModelWithProjection]


def home(tensor: torch.Tensor) -> str:
    """The file that a tensor's memory is mapped from; "" for memory of the process's own."""
    place = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5) if line.count(" ") > 5 else (*line.split(), "")
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= place < high:
            return name if name.startswith("/") else ""
    raise AssertionError("no such memory")


def saved(tower_class: type, folder: Path, width: int, dtype: torch.dtype) -> int:
    """Write a random tower; number of its weights."""
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
    )
    tower = tower_class(config).to(dtype)
    tower.save_pretrained(folder)
    return sum(p.numel() for p in tower.parameters())


@pytest.mark.parametrize("tower_class", CLASSES)
@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_weights_are_those_of_transformers(
    tmp_path: Path, tower_class: type, stored: torch.dtype, asked: torch.dtype
) -> None:
    saved(tower_class, tmp_path, 32, stored)
    expected = tower_class.from_pretrained(tmp_path, dtype=asked).state_dict()  # type: ignore[attr-defined]
    with ConvertedInFiles(str(tmp_path)):
        tower = load_image_tower(tower_class, tmp_path, asked)
    found = tower.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value) and found[name].dtype == asked, name
    assert not any(p.requires_grad for p in tower.parameters()) and not tower.training


@pytest.mark.parametrize("tower_class", CLASSES)
def test_a_converted_tower_is_never_in_memory(
    tmp_path: Path, tower_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each weight goes from the checkpoint's mapped file into a scratch file's."""
    saved(tower_class, tmp_path, 256, torch.float16)
    sources: list[str] = []
    original = ConvertedInFiles._converted

    def spy(self: ConvertedInFiles, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        sources.append(home(tensor))
        return original(self, tensor, dtype)

    monkeypatch.setattr(ConvertedInFiles, "_converted", spy)
    with ConvertedInFiles(str(tmp_path)):
        tower = load_image_tower(tower_class, tmp_path, torch.float32)
        careless = tower_class.from_pretrained(tmp_path, dtype=torch.float32)  # type: ignore[attr-defined]
    large = [p for p in tower.parameters() if 4 * p.numel() >= 1 << 16]
    assert len(sources) == len(large) > 20
    assert set(sources) == {str(tmp_path / "model.safetensors")}
    assert all("anti_i2v_weight_" in home(parameter) for parameter in large)
    in_memory = [home(p) for p in careless.parameters() if 4 * p.numel() >= 1 << 16]
    assert in_memory == [""] * len(large), "as transformers loads them"


def test_variants_and_mixed_files(tmp_path: Path) -> None:
    saved(CLIPVisionModel, tmp_path, 32, torch.float32)
    plain = CLIPVisionModel.from_pretrained(tmp_path)
    half = plain.half()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    found = load_image_tower(CLIPVisionModel, tmp_path, torch.float32, "fp16").state_dict()
    for name, value in half.state_dict().items():
        assert torch.equal(found[name], value.float())
    mixed = CLIPVisionModel.from_pretrained(tmp_path, variant="fp16")
    mixed.encoder.layers[0].float()
    mixed.save_pretrained(tmp_path / "mixed")
    found = load_image_tower(CLIPVisionModel, tmp_path / "mixed", torch.float32).state_dict()
    for name, value in mixed.state_dict().items():
        assert torch.equal(found[name], value.float()), "no weight loses its precision on the way"
