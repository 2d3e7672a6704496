"""The Open-Sora generator against clips of the published sampler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.open_sora import OpenSoraGenerator, OpenSoraGeneratorConfig
from anti_i2v_lit.surrogates.open_sora.miniature import save_tiny
from tests.surrogates.open_sora.patterned import (
    FRAMES,
    PROMPT,
    SIZE,
    patterned_parts,
    photo,
    published,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open_sora") / "model"
    save_tiny(path)
    return path


def photos(count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 32, 52, generator=torch.Generator().manual_seed(11))


def built(folder: Path, **fields: object) -> OpenSoraGenerator:
    node = {"name": "open_sora", "path": str(folder), "height": 32, "width": 52, "device": "cpu"}
    generator = GENERATORS.build({**node, "num_frames": 19, "num_inference_steps": 2, **fields})
    assert isinstance(generator, OpenSoraGenerator)
    return generator


def test_clip_is_the_published_samplers() -> None:
    config = OpenSoraGeneratorConfig(
        height=SIZE[0], width=SIZE[1], num_frames=FRAMES, num_inference_steps=4, device="cpu"
    )
    clip = OpenSoraGenerator(config, patterned_parts()).generate(photo(), [PROMPT], [11])
    assert clip.shape == (1, FRAMES, 3, *SIZE)
    expected = torch.tensor(published()["pixels"]).reshape(FRAMES, 3, 2, 3)
    assert expected.std() > 0.03
    # Four steps with guidance amplify rounding: one percent of the spread of the clips.
    torch.testing.assert_close(clip[0, :, :, ::8, ::8], expected, atol=1e-3, rtol=0)


def test_tiny_goes_through_the_same_loading_code(folder: Path) -> None:
    loaded, tiny = built(folder), OpenSoraGenerator.tiny()
    found, expected = (g.generate(photos(), ["smile"], [3]) for g in (loaded, tiny))
    assert torch.equal(found, expected)
    assert found.shape == (1, 19, 3, 32, 52)


def test_columns_without_a_latent_repeat_their_neighbours(folder: Path) -> None:
    clip = built(folder).generate(photos(), ["smile"], [3])
    assert torch.equal(clip[..., 48:], clip[..., 47:48].expand_as(clip[..., 48:]))
    assert not torch.equal(clip[..., 46], clip[..., 47])


def test_guidance_of_one_runs_the_network_once_per_step(folder: Path) -> None:
    calls = {}
    for scale in (1.0, 7.0):
        generator = built(folder, guidance_scale=scale)
        seen: list[int] = []
        generator._parts.denoiser.register_forward_pre_hook(lambda *_, s=seen: s.append(1))
        calls[scale] = (generator.generate(photos(), ["smile"], [3]), len(seen))
    assert (calls[1.0][1], calls[7.0][1]) == (2, 4)
    assert not torch.allclose(calls[1.0][0], calls[7.0][0], atol=1e-3)


def test_encoding_decodes_to_the_reconstruction(folder: Path) -> None:
    generator = built(folder)
    latents = generator.encode(photos(2))
    assert latents.shape == (2, 4, 4, 6) and latents.dtype == torch.float32
    vae = generator._parts.vae
    with torch.no_grad():
        planes = vae.temporal_vae.decode(latents[:, :, None], 1)
        decoded = vae.spatial_vae.module.decode(planes[:, :, 0] / 0.18215).sample
    expected = (decoded / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator.reconstruct(photos(2))[..., :48], expected)


def test_bfloat16_generator_gives_float32_frames(folder: Path) -> None:
    generator = built(folder, dtype="bfloat16", num_frames=5, num_inference_steps=1)
    assert generator.generate(photos(), ["smile"], [1]).dtype == torch.float32
    assert generator.reconstruct(photos()).dtype == torch.float32
    assert generator.encode(photos()).dtype == torch.float32


def test_loading_and_generating_print_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    built(folder, num_frames=5).generate(photos(), ["smile"], [1])
    assert capfd.readouterr() == ("", "")


def test_published_settings_are_the_defaults() -> None:
    config = OpenSoraGeneratorConfig()
    generator = OpenSoraGenerator(OpenSoraGeneratorConfig(device="cpu"), patterned_parts())
    assert generator.view_size == (240, 426) and generator.num_frames == 51
    assert (config.num_inference_steps, config.guidance_scale) == (30, 7.0)
    assert (config.fps, config.aesthetic_score) == (24.0, 6.5)


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download hpcai-tech/OpenSora-VAE-v1.2"):
        GENERATORS.build({"name": "open_sora"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float16"),
        ("num_inference_steps", 0),
        ("guidance_scale", 0.5),
        ("num_frames", 4),
        ("height", -1),
    ],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        GENERATORS.build({"name": "open_sora", field: value})
