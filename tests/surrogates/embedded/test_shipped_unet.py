import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, cat

from anti_i2v_lit.evaluation.model_card import token_scores
from anti_i2v_lit.generators.dynamicrafter import (
    DynamiCrafterGenerator,
    DynamiCrafterGeneratorConfig,
)
from anti_i2v_lit.surrogates.dynamicrafter.adapter import (
    DynamiCrafterSurrogate,
    DynamiCrafterSurrogateConfig,
)
from anti_i2v_lit.surrogates.embedded import embedded_checkpoint
from anti_i2v_lit.surrogates.embedded.fragility import measure_fragility
from anti_i2v_lit.surrogates.embedded.text import VOCABULARY


@pytest.fixture(scope="module")
def generator() -> DynamiCrafterGenerator:
    return DynamiCrafterGenerator(
        DynamiCrafterGeneratorConfig(device="cpu", num_inference_steps=8, eta=0.0)
    )


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    face = Image.fromarray(astronaut()[30:230, 120:320])
    small = face.resize((128, 128), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


def test_the_folder_is_small_and_complete() -> None:
    folder = embedded_checkpoint("unet_128")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.yaml", "MODEL_CARD.md"} <= files
    assert sum((folder / name).stat().st_size for name in files) < 25_000_000


def test_embedded_is_the_default_of_surrogate_and_generator(
    generator: DynamiCrafterGenerator,
) -> None:
    surrogate = DynamiCrafterSurrogate(DynamiCrafterSurrogateConfig())
    assert surrogate.view_size == generator.view_size == (128, 128)
    assert surrogate.num_frames == generator.num_frames == 5


def test_a_generated_clip_starts_from_the_photo_and_moves(
    generator: DynamiCrafterGenerator, portrait: torch.Tensor
) -> None:
    (clip,) = generator.generate(portrait, ["the camera pans left quickly"], [0])
    assert clip.shape == (5, 3, 128, 128)
    errors = [float((frame - portrait[0]).square().mean()) for frame in clip]
    assert errors[0] < 0.015
    assert errors[4] > 1.5 * errors[0]


def test_prompts_say_how_much_moves(
    generator: DynamiCrafterGenerator, portrait: torch.Tensor
) -> None:
    prompts = ["the camera pans left quickly", "the person nods"]
    panned, nodded = generator.generate(portrait.expand(2, -1, -1, -1), prompts, [0, 0])
    assert float((panned[4] - nodded[4]).abs().mean()) > 5 / 255


def test_image_tokens_matter_most_without_a_latent(portrait: torch.Tensor) -> None:
    other = torch.from_numpy(cat()[10:266, 100:356].copy()).permute(2, 0, 1)[None].float() / 255
    other = torch.nn.functional.interpolate(other, size=(128, 128), mode="area")
    beside, alone = token_scores(embedded_checkpoint("unet_128"), torch.cat([portrait, other]))
    assert beside.values[0] > 0.01
    assert alone.values[0] > 0.2


def test_the_encoder_is_fragile_and_its_latents_are_about_white(portrait: torch.Tensor) -> None:
    surrogate = DynamiCrafterSurrogate(DynamiCrafterSurrogateConfig())

    def encode(image: torch.Tensor) -> torch.Tensor:
        return surrogate.condition((image + 1) / 2).latents

    fragility = measure_fragility(encode, 2 * portrait - 1, steps=20)
    assert fragility.attacked >= 1.0
    assert fragility.random < 0.4
    assert 0.7 < float(encode(2 * portrait - 1).std()) < 1.4


def test_the_configuration_counts_the_words_of_the_tokenizer() -> None:
    folder = embedded_checkpoint("unet_128")
    assert f"vocab_size: {len(VOCABULARY) + 3}" in (folder / "config.yaml").read_text("utf-8")
