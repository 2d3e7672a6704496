"""The CLIP towers, their tokens and their resizing against OpenCLIP and kornia."""

from __future__ import annotations

import kornia
import open_clip
import pytest
import torch

from anti_i2v_lit.surrogates.dynamicrafter.clip import (
    ClipSettings,
    ImageEmbedder,
    TextEmbedder,
    TowerSettings,
)
from anti_i2v_lit.surrogates.dynamicrafter.resizing import resizing_matrix
from anti_i2v_lit.surrogates.dynamicrafter.tokens import openclip_tokenizer

SETTINGS = ClipSettings(
    embed_dim=24,
    image=TowerSettings(width=32, layers=3, heads=2),
    text=TowerSettings(width=48, layers=3, heads=4),
    image_size=28,
    patch_size=14,
    vocab_size=50,
)


@pytest.fixture(scope="module")
def original() -> open_clip.CLIP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.CLIP(
            24,
            {"image_size": 28, "patch_size": 14, "width": 32, "layers": 3, "head_width": 16},
            {"context_length": 77, "vocab_size": 50, "width": 48, "heads": 4, "layers": 3},
        ).eval()


def weights(original: open_clip.CLIP, without: str) -> dict[str, torch.Tensor]:
    stored = original.state_dict().items()
    return {f"model.{name}": value for name, value in stored if not name.startswith(without)}


def test_image_tokens_are_those_in_front_of_openclips_last_normalisation(
    original: open_clip.CLIP,
) -> None:
    embedder = ImageEmbedder(SETTINGS).eval()
    embedder.load_state_dict(weights(original, "transformer."), strict=True)
    seen: list[torch.Tensor] = []
    tower = original.visual
    handle = tower.ln_post.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    photos = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        tower(embedder.preprocess(photos))
        tokens = embedder(photos)
    handle.remove()
    assert tokens.shape == (2, 5, 32)
    # OpenCLIP normalises either all tokens or the class token alone, by its version.
    expected = seen[0] if seen[0].ndim == 3 else seen[0][:, None]
    torch.testing.assert_close(tokens[:, : expected.shape[1]], expected, atol=1e-5, rtol=1e-4)


def test_text_tokens_are_those_before_openclips_last_block(original: open_clip.CLIP) -> None:
    embedder = TextEmbedder(SETTINGS).eval()
    embedder.load_state_dict(weights(original, "visual."), strict=True)
    seen: list[torch.Tensor] = []
    last = original.transformer.resblocks[-1]
    handle = last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    tokens = torch.randint(0, 50, (2, 77), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        original.encode_text(tokens)
        (found,) = embedder(tokens)
        expected = original.ln_final(seen[0])
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_tokenizer_is_openclips() -> None:
    tokenizer = openclip_tokenizer()
    texts = [
        "a person is talking",
        "Don't SMILE,  at 24 fps!",
        "",
        "wow!! (really?!) <b>",
        "naïve café " * 60,
    ]
    found = tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    assert torch.equal(found, open_clip.tokenize(texts))


@pytest.mark.parametrize("size", [(40, 64), (300, 28), (28, 57), (20, 90)])
def test_preprocessing_is_the_published_one(size: tuple[int, int]) -> None:
    photos = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    resized = kornia.geometry.resize(
        photos, (28, 28), interpolation="bicubic", align_corners=True, antialias=True
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = kornia.enhance.normalize((resized + 1.0) / 2.0, mean, std)
    found = ImageEmbedder(SETTINGS).preprocess(photos)
    torch.testing.assert_close(found, expected, atol=3e-4, rtol=0)


def test_resizing_keeps_grey_grey() -> None:
    torch.testing.assert_close(resizing_matrix(500, 224).sum(1), torch.ones(224))
