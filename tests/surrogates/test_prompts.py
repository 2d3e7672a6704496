"""Prompt embeddings: those of the pipeline, made once, kept on disk."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.miniatures import TEXT_TOKENS, TEXT_WIDTH, tiny_cogvideox
from anti_i2v_lit.surrogates.prompts import (
    PromptCache,
    PromptEmbedder,
    encoder_device,
    text_model_key,
)

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
    prepared.prepare(["a cat", "smile", "a cat"], CPU)
    assert loader.calls == 1
    found = prepared.embed(["smile", "a cat"], CPU)
    prepared.prepare(["smile"], CPU)
    assert loader.calls == 1
    assert torch.equal(found, embedder(CountingLoader()).embed(["smile", "a cat"], CPU))


def test_the_encoder_is_gone_when_its_texts_are_embedded() -> None:
    encoders = []

    def load():
        pipeline = tiny_cogvideox()
        encoders.append(weakref.ref(pipeline.text_encoder))
        return pipeline.tokenizer, pipeline.text_encoder

    short_lived = PromptEmbedder(load, TEXT_TOKENS, torch.float32)
    short_lived.prepare(["a cat"], CPU)
    short_lived.embed(["smile"], CPU)
    assert [encoder() for encoder in encoders] == [None, None]


def test_texts_that_come_up_later_are_embedded_on_the_cpu() -> None:
    pipeline = tiny_cogvideox()
    seen: list[torch.device] = []
    pipeline.text_encoder.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].device)
    )
    embedder = PromptEmbedder(
        lambda: (pipeline.tokenizer, pipeline.text_encoder), TEXT_TOKENS, torch.float32
    )
    assert embedder.embed(["a cat"], torch.device("meta")).device.type == "meta"
    assert seen == [CPU]


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
    many.prepare(texts, CPU)
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


def test_a_filled_gpu_is_left_to_the_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for allocated, expected in ((0, "cuda"), (512, "cpu")):
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda size=allocated: size)
        assert encoder_device().type == expected


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
