"""What a CogVideoX surrogate reads of a folder, when, and how short clips are treated."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file

from anti_i2v_lit.miniatures import TEXT_TOKENS, tiny_cogvideox
from anti_i2v_lit.surrogates import SURROGATES, cogvideox_loading
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate, CogVideoXSurrogateConfig
from anti_i2v_lit.surrogates.cogvideox_loading import load_parts, parts_of
from anti_i2v_lit.surrogates.encoder_loading import load_without_decoder
from anti_i2v_lit.surrogates.prompts import Prompting


def photos(count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(11))


def answer(surrogate: Surrogate) -> torch.Tensor:
    """The prediction for one photo at a fixed draw."""
    clip = photos()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    latents = surrogate.encode_clip(clip)
    draw = surrogate.draw(latents, [torch.Generator().manual_seed(1)], ["smile"])
    found = surrogate.denoise(surrogate.condition(photos()), draw, frozenset(), True).prediction
    assert found is not None
    return found


def mapped_file(tensor: torch.Tensor) -> str:
    """The file that a tensor's memory is mapped from, "" if it is ordinary memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, last = line.split()
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= tensor.data_ptr() < high:
            return last if last.startswith("/") else ""
    return ""


def test_sharded_folders_load_to_the_same_surrogate(tmp_path: Path) -> None:
    pipeline = tiny_cogvideox()
    pipeline.save_pretrained(tmp_path / "whole")
    pipeline.save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    for part in ("transformer", "vae"):
        assert len(list((tmp_path / "parts" / part).glob("*.safetensors"))) > 1
        assert list((tmp_path / "parts" / part).glob("*.index.json"))
    whole, parts = (
        SURROGATES.build({"name": "cogvideox", "path": str(tmp_path / name)})
        for name in ("whole", "parts")
    )
    for one, other in zip(whole.modules, parts.modules, strict=True):
        expected = one.state_dict()
        assert other.state_dict().keys() == expected.keys()
        assert all(torch.equal(v, expected[k]) for k, v in other.state_dict().items())
    # Where a weight lies in its file decides its alignment, and that the last bits on a CPU.
    torch.testing.assert_close(answer(parts), answer(whole), atol=1e-5, rtol=1e-4)


def test_the_decoder_is_never_read(tmp_path: Path) -> None:
    tiny_cogvideox().save_pretrained(tmp_path)
    expected = answer(SURROGATES.build({"name": "cogvideox", "path": str(tmp_path)}))
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if not k.startswith("decoder.")}
    save_file(kept, file)
    surrogate = SURROGATES.build({"name": "cogvideox", "path": str(tmp_path)})
    torch.testing.assert_close(answer(surrogate), expected, atol=1e-5, rtol=1e-4)
    del kept["encoder.conv_in.conv.bias"]
    save_file(kept, file)
    with pytest.raises(ValueError, match="encoder.conv_in.conv.bias"):
        load_without_decoder(AutoencoderKLCogVideoX, tmp_path / "vae", torch.float32)
    file.unlink()
    with pytest.raises(ValueError, match="found neither"):
        load_without_decoder(AutoencoderKLCogVideoX, tmp_path / "vae", torch.float32)


def test_encoder_without_decoder_holds_the_published_weights(tmp_path: Path) -> None:
    tiny_cogvideox("1.5").save_pretrained(tmp_path)
    whole = AutoencoderKLCogVideoX.from_pretrained(tmp_path, subfolder="vae")
    found = load_without_decoder(AutoencoderKLCogVideoX, tmp_path / "vae", torch.bfloat16)
    assert found.config.invert_scale_latents is True
    expected = {k: v for k, v in whole.state_dict().items() if not k.startswith("decoder.")}
    assert found.state_dict().keys() == expected.keys()
    for key, value in found.state_dict().items():
        assert value.dtype == torch.bfloat16 and value.device.type == "cpu"
        assert torch.equal(value, expected[key].bfloat16())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's memory maps")
def test_weights_stay_in_their_files_until_they_are_moved(tmp_path: Path) -> None:
    tiny_cogvideox().to(torch.bfloat16).save_pretrained(tmp_path)
    parts = load_parts(str(tmp_path), torch.bfloat16, Prompting())
    for network in (parts.transformer, parts.vae):
        for name, weight in network.named_parameters():
            assert mapped_file(weight).endswith(".safetensors"), name


def test_named_prompts_are_embedded_before_the_denoiser_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_cogvideox().save_pretrained(tmp_path / "model")
    alive_at_load: list[object] = []
    encoders: list[weakref.ref] = []
    load_text = cogvideox_loading._load_text_model
    load_transformer = cogvideox_loading.CogVideoXTransformer3DModel.from_pretrained

    def spied_text(folder: Path, dtype: torch.dtype):
        tokenizer, encoder = load_text(folder, dtype)
        encoders.append(weakref.ref(encoder))
        return tokenizer, encoder

    def spied_transformer(*args, **kwargs):
        gc.collect()
        alive_at_load.extend(encoder() for encoder in encoders)
        return load_transformer(*args, **kwargs)

    monkeypatch.setattr(cogvideox_loading, "_load_text_model", spied_text)
    monkeypatch.setattr(
        cogvideox_loading.CogVideoXTransformer3DModel, "from_pretrained", spied_transformer
    )
    fields = {"path": str(tmp_path / "model"), "prompt_cache": str(tmp_path / "cache")}
    surrogate = SURROGATES.build({"name": "cogvideox", "prompts": ["smile"], **fields})
    assert alive_at_load == [None]
    first = answer(surrogate)
    assert len(encoders) == 1
    # The next run finds the text on disk and loads no encoder at all.
    again = SURROGATES.build({"name": "cogvideox", "prompts": ["smile"], **fields})
    assert torch.equal(answer(again), first)
    assert len(encoders) == 1


@pytest.mark.parametrize("generation", ["1.0", "1.5", "2B"])
@pytest.mark.parametrize(("frames", "latent"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_four_frames_are_one_latent_frame_and_five_are_two(
    generation: str, frames: int, latent: int
) -> None:
    pipeline = tiny_cogvideox(generation, num_frames=9)
    surrogate = CogVideoXSurrogate(CogVideoXSurrogateConfig(num_frames=frames), parts_of(pipeline))
    padded = latent + latent % 2 if generation == "1.5" else latent
    prediction = answer(surrogate)
    assert prediction.shape == (1, padded, 4, 4, 4)
    assert prediction.isfinite().all()


def test_short_clips_keep_the_learned_positions_of_the_first_frames() -> None:
    pipeline = tiny_cogvideox(num_frames=9)
    embed = pipeline.transformer.patch_embed
    generator = torch.Generator().manual_seed(3)
    embed.pos_embedding = torch.randn(embed.pos_embedding.shape, generator=generator)
    text = torch.randn(1, TEXT_TOKENS, 16, generator=generator)
    latents = torch.randn(1, 3, 8, 4, 4, generator=generator)
    with torch.no_grad():
        whole = embed(text, latents)
        expected = whole[:, : TEXT_TOKENS + 2 * 4]  # two latent frames of 2 x 2 tokens
        CogVideoXSurrogate(CogVideoXSurrogateConfig(num_frames=9), parts_of(pipeline))
        assert torch.equal(embed(text, latents), whole)
        pipeline.vae = tiny_cogvideox(num_frames=9).vae  # the first adapter took the encoder over
        CogVideoXSurrogate(CogVideoXSurrogateConfig(num_frames=5), parts_of(pipeline))
        torch.testing.assert_close(embed(text, latents[:, :2]), expected)
