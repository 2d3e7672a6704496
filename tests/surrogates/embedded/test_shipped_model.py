import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from PIL import Image
from skimage.data import astronaut
from transformers import AutoTokenizer

from anti_i2v_lit.surrogates.embedded import embedded_checkpoint
from anti_i2v_lit.surrogates.embedded.fragility import measure_fragility
from anti_i2v_lit.surrogates.embedded.text import TEXT_LENGTH, VOCABULARY


@pytest.fixture(scope="module")
def pipeline() -> CogVideoXImageToVideoPipeline:
    return CogVideoXImageToVideoPipeline.from_pretrained(
        embedded_checkpoint(), dtype=torch.float32, local_files_only=True
    )


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    return Image.fromarray(astronaut()[30:230, 120:320]).resize(
        (128, 128), Image.Resampling.LANCZOS
    )


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="mmdit_128"):
        embedded_checkpoint("mmdit_4096")


def test_finding_the_folder_imports_nothing_heavy() -> None:
    code = (
        "import sys; import anti_i2v_lit.surrogates.embedded as e; e.embedded_checkpoint(); "
        "sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_folder_is_small_complete_and_half_precision() -> None:
    folder = embedded_checkpoint()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25_000_000
    assert (folder / "MODEL_CARD.md").is_file()
    settings = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    assert settings["in_channels"] == 2 * settings["out_channels"]
    assert settings["use_rotary_positional_embeddings"]
    assert settings["use_learned_positional_embeddings"]


def test_the_tokenizer_knows_its_words_and_no_others() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_checkpoint() / "tokenizer")
    assert len(tokenizer) == len(VOCABULARY) + 3
    tokens = tokenizer("The person smiles xyzzy").input_ids
    assert tokenizer.convert_ids_to_tokens(tokens) == [
        "the",
        "person",
        "smiles",
        "<unk>",
        "</s>",
    ]


@torch.no_grad()
def test_a_generated_clip_starts_from_the_photo_and_moves(
    pipeline: CogVideoXImageToVideoPipeline, portrait: Image.Image
) -> None:
    clip = pipeline(
        image=portrait,
        prompt="the camera pans left quickly",
        height=128,
        width=128,
        num_frames=5,
        num_inference_steps=8,
        guidance_scale=1.0,
        max_sequence_length=TEXT_LENGTH,
        output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).frames[0]
    photo = as_tensor(portrait)[0] / 2 + 0.5
    assert clip.shape == (5, 3, 128, 128)
    errors = [float((frame - photo).square().mean()) for frame in clip]
    assert errors[0] < 0.01
    assert errors[4] > 2 * errors[0]
    # A pan to the left shows the picture moved to the right: it matches better when moved back.
    back = torch.roll(clip[4], -5, dims=-1)[..., 10:-10]
    ahead = torch.roll(clip[4], 5, dims=-1)[..., 10:-10]
    inner = photo[..., 10:-10]
    assert (back - inner).square().mean() < (ahead - inner).square().mean()


def test_the_encoder_is_fragile(
    pipeline: CogVideoXImageToVideoPipeline, portrait: Image.Image
) -> None:
    def encode(image: torch.Tensor) -> torch.Tensor:
        return pipeline.vae.encode(image[:, :, None]).latent_dist.mean

    fragility = measure_fragility(encode, as_tensor(portrait))
    assert fragility.attacked >= 1.0
    assert fragility.random < 0.3


@torch.no_grad()
def test_latents_of_a_portrait_are_about_white(
    pipeline: CogVideoXImageToVideoPipeline, portrait: Image.Image
) -> None:
    latent = pipeline.vae.encode(as_tensor(portrait)[:, :, None]).latent_dist.mean
    assert latent.shape == (1, 16, 1, 16, 16)
    assert 0.7 < float(latent.std()) < 1.4
    assert pipeline.vae.config.scaling_factor == 1.0
