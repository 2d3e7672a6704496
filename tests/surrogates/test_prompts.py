"""Prompt embeddings: those of the pipeline, made once, kept on disk."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from anti_i2v_lit.miniatures import TEXT_TOKENS, TEXT_WIDTH, tiny_cogvideox
from anti_i2v_lit.surrogates.latent import PromptedConfig
from anti_i2v_lit.surrogates.prompts import (
    PromptCache,
    PromptEmbedder,
    Prompting,
    text_model_key,
)
from anti_i2v_lit.surrogates.sharding.scratch import ConvertedInFiles

CPU = torch.device("cpu")


class CountingLoader:
    """Hands out the text model of a miniature pipeline and counts how often."""

    def __init__(self) -> None:
        self.pipeline = tiny_cogvideox()
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.pipeline.tokenizer, self.pipeline.text_encoder


def embedder(loader: CountingLoader, cache: PromptCache | None = None) -> PromptEmbedder:
    return PromptEmbedder(loader, TEXT_TOKENS, torch.float32, cache)


def test_embeddings_are_those_of_the_pipeline() -> None:
    loader = CountingLoader()
    found = embedder(loader).embed(["a cat", "smile", "a cat"], CPU)
    expected, _ = loader.pipeline.encode_prompt(
        ["a cat", "smile", "a cat"],
        do_classifier_free_guidance=False,
        max_sequence_length=TEXT_TOKENS,
    )
    assert found.shape == (3, TEXT_TOKENS, TEXT_WIDTH)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_text_model_is_loaded_once_for_new_texts_only() -> None:
    loader = CountingLoader()
    embed = embedder(loader).embed
    embed(["a", "b"], CPU)
    embed(["b", "a", "a"], CPU)
    assert loader.calls == 1
    embed(["a", "c"], CPU)
    assert loader.calls == 2


def test_prepared_texts_need_no_encoder_later() -> None:
    loader = CountingLoader()
    prepared = embedder(loader)
    prepared.prepare(["a cat", "smile", "a cat"])
    assert loader.calls == 1
    found = prepared.embed(["smile", "a cat"], CPU)
    prepared.prepare(["smile"])
    assert loader.calls == 1
    assert torch.equal(found, embedder(CountingLoader()).embed(["smile", "a cat"], CPU))


def test_the_encoder_is_gone_when_its_texts_are_embedded() -> None:
    encoders = []

    def load():
        pipeline = tiny_cogvideox()
        encoders.append(weakref.ref(pipeline.text_encoder))
        return pipeline.tokenizer, pipeline.text_encoder

    short_lived = PromptEmbedder(load, TEXT_TOKENS, torch.float32)
    short_lived.prepare(["a cat"])
    short_lived.embed(["smile"], CPU)
    assert [encoder() for encoder in encoders] == [None, None]


class Elsewhere:
    """A text model without weights that notes where it is run."""

    def __init__(self) -> None:
        self.devices: list[str] = []
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.tokenize, Encoder()

    def tokenize(self, texts: Any, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=self)

    def __len__(self) -> int:
        return 1

    def to(self, device: torch.device) -> torch.Tensor:
        self.devices.append(device.type)
        return torch.zeros(1, 8, dtype=torch.long)


class Encoder(nn.Module):
    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        hidden = torch.ones(1, 8, 4096, dtype=torch.bfloat16)
        return (hidden.float().square(),)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_device_follows_from_the_setting_alone(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Not from what lies on the GPU, nor from whether a text was known beforehand."""

    def nobody_asks() -> int:
        raise AssertionError("what is allocated depends on when a run was resumed")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_allocated", nobody_asks)
    model = Elsewhere()
    config = PromptedConfig(prompt_device=device)
    made = config.prompting().embedder(model, 8, torch.float32, str)
    made.prepare(["known beforehand"])
    made.embed(["known beforehand", "came up later"], CPU)
    assert model.devices == [device, device] and model.calls == 2


def test_devices_keep_their_embeddings_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = Elsewhere()
    for device in ("cpu", "cuda", "cpu", "cuda"):
        asked = Prompting(cache=str(tmp_path), device=device)
        asked.embedder(model, 8, torch.float32, lambda: "model").embed(["smile"], CPU)
    assert model.devices == ["cpu", "cuda"]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU here; set prompt_device=cpu"):
        Prompting(device="cuda").embedder(Elsewhere(), 8, torch.float32, str)
    with pytest.raises(ValueError, match="Did you mean 'cuda'"):
        PromptedConfig(prompt_device="cuda0")


def test_many_texts_on_a_slow_device_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    encoder = Encoder()
    encoder.weight = nn.Parameter(torch.zeros(1).expand(1 << 30), requires_grad=False)
    made = PromptEmbedder(lambda: (Elsewhere().tokenize, encoder), 8, torch.float32)
    made.prepare(["a", "b"])
    with pytest.warns(UserWarning, match="32 prompts are embedded on the CPU by .* 1.1 billion"):
        made.prepare([f"text {i}" for i in range(32)])


def test_activations_are_not_converted_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text encoder runs while divided weights are loaded; its layers are no weights."""
    in_files: list[int] = []
    original = ConvertedInFiles._converted

    def spy(self: ConvertedInFiles, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        in_files.append(tensor.numel())
        return original(self, tensor, dtype)

    monkeypatch.setattr(ConvertedInFiles, "_converted", spy)
    made = PromptEmbedder(Elsewhere(), 8, torch.bfloat16)
    with ConvertedInFiles(str(tmp_path)):
        made.prepare(["a cat"])
        made.embed(["smile"], CPU)
        assert in_files == []
        torch.ones(8, 4096, dtype=torch.bfloat16).float()
    assert in_files == [8 * 4096], "weights still are"


def test_disk_serves_the_next_run(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path / "cache", "model")
    first = embedder(CountingLoader(), cache).embed(["a cat"], CPU)
    loader = CountingLoader()
    assert torch.equal(embedder(loader, cache).embed(["a cat"], CPU), first)
    assert loader.calls == 0
    assert PromptCache(tmp_path / "cache", "another model").get("a cat") is None
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".safetensors"]


def test_many_texts_are_embedded_together_and_wait_on_the_disk(tmp_path: Path) -> None:
    loader, texts = CountingLoader(), [f"text {i}" for i in range(300)]
    many = embedder(loader, PromptCache(tmp_path, "model"))
    many.prepare(texts)
    assert loader.calls == 1 and len(list(tmp_path.iterdir())) == 300
    found = many.embed([texts[0], texts[299]], CPU)
    many.prepare(texts)
    assert loader.calls == 1
    assert torch.equal(found, embedder(CountingLoader()).embed([texts[0], texts[299]], CPU))


def test_without_a_disk_the_memory_bounds_what_is_prepared() -> None:
    loader, texts = CountingLoader(), [f"text {i}" for i in range(300)]
    many = embedder(loader)
    with pytest.warns(UserWarning, match="set prompt_cache"):
        many.prepare(texts)
    many.embed(texts[:1], CPU)
    assert loader.calls == 1
    many.embed(texts[299:], CPU)
    assert loader.calls == 2
    for number in range(300):
        many.embed([f"late {number}"], CPU)
    calls = loader.calls
    many.embed([texts[0], texts[255], "late 299"], CPU)
    assert loader.calls == calls, "what is known beforehand stays, late texts make room for later"


def test_a_torn_file_is_made_anew_with_a_warning(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, "model")
    first = embedder(CountingLoader(), cache).embed(["a cat"], CPU)
    cache.path("a cat").write_bytes(cache.path("a cat").read_bytes()[:40])
    loader = CountingLoader()
    with pytest.warns(UserWarning, match="unreadable"):
        again = embedder(loader, cache).embed(["a cat"], CPU)
    assert loader.calls == 1 and torch.equal(again, first)
    stored = cache.get("a cat")
    assert stored is not None and torch.equal(stored, first[0])


def test_a_long_prompt_is_cut_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="is cut"):
        found = embedder(CountingLoader()).embed(["letters " * 20], CPU)
    assert found.shape[1] == TEXT_TOKENS


def test_model_key_follows_content_not_place(tmp_path: Path) -> None:
    for name in ("here", "there"):
        pipeline = tiny_cogvideox()
        pipeline.save_pretrained(tmp_path / name)
    key = text_model_key(tmp_path / "here", 8, torch.float32)
    assert key == text_model_key(tmp_path / "there", 8, torch.float32)
    assert key != text_model_key(tmp_path / "here", 9, torch.float32)
    assert key != text_model_key(tmp_path / "here", 8, torch.bfloat16)
    weights = next((tmp_path / "there" / "text_encoder").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert key != text_model_key(tmp_path / "there", 8, torch.float32)
