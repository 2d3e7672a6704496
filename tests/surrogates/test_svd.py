"""The Stable Video Diffusion adapter against diffusers' own U-Net and pipeline."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
from scipy import stats

from anti_i2v_lit.miniatures.svd import tiny_svd
from anti_i2v_lit.surrogates import SURROGATES, svd
from anti_i2v_lit.surrogates.svd import SVDSurrogate, SVDSurrogateConfig
from anti_i2v_lit.surrogates.svd_denoiser import TappedUNet
from anti_i2v_lit.surrogates.svd_loading import parts_of
from anti_i2v_lit.types import Draw

# Not square, and larger than the image encoder's input in one direction only.
SIZE = (32, 240)
TIMESTEPS = (930, 120)  # of the two sampling steps below


def images(count: int, size: tuple[int, int] = SIZE) -> list[Image.Image]:
    """Smooth 8-bit photos: noise survives no resize."""
    generator = np.random.default_rng(3)
    coarse = generator.integers(0, 256, (count, 4, 8, 3), dtype=np.uint8)
    return [Image.fromarray(c).resize(size[::-1], Image.Resampling.BICUBIC) for c in coarse]


def views_of(pictures: list[Image.Image]) -> torch.Tensor:
    pixels = np.stack([np.asarray(p) for p in pictures]).astype(np.float32) / 255.0
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def surrogate_of(pipeline: StableVideoDiffusionPipeline, **fields) -> SVDSurrogate:
    size = {"height": SIZE[0], "width": SIZE[1]}
    config = SVDSurrogateConfig(**{**size, **fields})
    return SVDSurrogate(config, parts_of(copy.deepcopy(pipeline)))


class Spy:
    """Records what the pipeline hands to its U-Net and what comes back."""

    def __init__(self, unet) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._forward = unet.forward
        unet.forward = self

    def __call__(self, sample, timestep, **inputs):
        output = self._forward(sample, timestep, **inputs)
        self.calls.append((sample, timestep, output[0]))
        return output


def schedule_through(pipeline: StableVideoDiffusionPipeline, sigmas: torch.Tensor) -> None:
    """Make two sampling steps run at exactly the noise levels of TIMESTEPS."""
    high, low = (sigmas[t].item() for t in TIMESTEPS)
    pipeline.scheduler.register_to_config(sigma_max=high, sigma_min=low)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("strength", [0.0, 0.02, 0.3])
def test_prediction_is_the_one_inside_the_pipelines_sampling_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guidance: float, strength: float
) -> None:
    tiny_svd().save_pretrained(tmp_path)
    told = {"fps": 11, "motion_bucket_id": 60, "noise_aug_strength": strength}
    surrogate = SURROGATES.build(
        {"name": "svd", "path": str(tmp_path), "height": SIZE[0], "width": SIZE[1], **told}
    )
    pipeline = StableVideoDiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    sigmas = surrogate.modules[0].sigmas
    schedule_through(pipeline, sigmas)
    spy = Spy(pipeline.unet)
    pictures = images(2)
    seeded = torch.Generator().manual_seed(5)
    pipeline(
        image=pictures,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=2,
        min_guidance_scale=1.0,
        max_guidance_scale=guidance,
        generator=seeded,
        output_type="latent",
        **told,
    )
    # The pipeline's first draw from its generator is the noise on the photos.
    noise = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(svd, "augmentation_noise", lambda draw, views: noise)
    assert len(spy.calls) == 2
    for (sample, timestep, output), step in zip(spy.calls, TIMESTEPS, strict=True):
        sigma = sigmas[step]
        assert timestep.item() == pytest.approx(0.25 * math.log(sigma), rel=1e-5)
        # Under guidance the second half of the batch is the conditional one.
        latents, expected = sample[-2:, :, :4], output[-2:]
        draw = Draw(
            clip_latents=torch.zeros_like(latents),
            noise=latents * (1 + sigma**2).sqrt() / sigma,
            timesteps=torch.tensor([step, step]),
            prompts=("", ""),
        )
        condition = surrogate.condition(views_of(pictures), draw=draw)
        found = surrogate.denoise(condition, draw, frozenset(), True).prediction
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_steps_equal_the_unets_forward() -> None:
    unet = tiny_svd().unet
    loop = TappedUNet(unet, torch.ones(1), False)
    generator = torch.Generator().manual_seed(6)
    latents = torch.randn(2, 3, 8, 8, 12, generator=generator)
    embedding = torch.randn(2, 1, unet.config.cross_attention_dim, generator=generator)
    ids, levels = torch.tensor([[6.0, 127.0, 0.02]] * 2), torch.tensor([1.4, -0.3])
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module, _inputs, output) -> None:
            seen[name] = output if isinstance(output, torch.Tensor) else output[0]

        return hook

    for way, blocks in (("down", unet.down_blocks), ("up", unet.up_blocks)):
        for i, block in enumerate(blocks):
            block.register_forward_hook(keep(f"{way}.{i}"))
    unet.mid_block.register_forward_hook(keep("mid"))
    unet.down_blocks[0].attentions[0].register_forward_hook(keep("down.0.attention.0"))
    unet.mid_block.attentions[0].register_forward_hook(keep("mid.attention.0"))
    for j in (0, 1):
        unet.up_blocks[1].attentions[j].register_forward_hook(keep(f"up.1.attention.{j}"))
    with torch.no_grad():
        expected = unet(latents, levels, embedding, ids).sample
        wanted = dict(seen)
        found, features = loop(latents, levels, embedding, ids, frozenset(loop.tap_names), True)
    assert torch.equal(found, expected)
    assert set(features) == set(wanted) == set(loop.tap_names)
    for name, tokens in features.items():
        maps = wanted[name].unflatten(0, (2, 3))
        assert torch.equal(tokens, maps.permute(0, 1, 3, 4, 2).flatten(1, 3)), name


def test_taps_go_from_shallow_to_deep_and_end_the_run() -> None:
    surrogate = surrogate_of(tiny_svd())
    assert surrogate.denoiser_taps == (
        "down.0.attention.0",
        "down.0",
        "down.1",
        "mid.attention.0",
        "mid",
        "up.0",
        "up.1.attention.0",
        "up.1.attention.1",
        "up.1",
    )
    assert run_counted(surrogate, {"down.0.attention.0"}, False) == [1, 0, 0, 0]
    assert run_counted(surrogate, {"mid.attention.0", "down.0"}, False) == [1, 1, 0, 0]
    assert run_counted(surrogate, {"mid.attention.0"}, True) == [1, 1, 1, 1]


def run_counted(surrogate: SVDSurrogate, taps: set[str], prediction: bool) -> list[int]:
    """Forward and backward; how often each transformer of the U-Net began."""
    unet = surrogate.modules[0].unet
    transformers = [
        unet.down_blocks[0].attentions[0],
        unet.mid_block.attentions[0],
        *unet.up_blocks[1].attentions,
    ]
    counts = [0] * len(transformers)
    handles = [
        module.register_forward_pre_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, module in enumerate(transformers)
    ]
    views = views_of(images(1)).requires_grad_()
    draw = draw_for(surrogate, views)
    denoised = surrogate.denoise(
        surrogate.condition(views, draw=draw), draw, frozenset(taps), prediction
    )
    values = [*denoised.features.values()]
    if denoised.prediction is not None:
        values.append(denoised.prediction)
    sum(v.square().mean() for v in values).backward()
    for handle in handles:
        handle.remove()
    return counts


def draw_for(surrogate: SVDSurrogate, views: torch.Tensor, seed: int = 1) -> Draw:
    clips = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    seeds = [torch.Generator().manual_seed(seed + i) for i in range(len(views))]
    return surrogate.draw(surrogate.encode_clip(clips), seeds, [""] * len(views), (0.2, 0.8))


def test_checkpointing_is_on_in_eval_mode_and_changes_nothing() -> None:
    pipeline = tiny_svd()
    plain, saving = (surrogate_of(pipeline, activation_checkpointing=on) for on in (False, True))
    assert not saving.modules[0].training
    assert run_counted(plain, {"up.1"}, True) == [1, 1, 1, 1]
    assert run_counted(saving, {"up.1"}, True) == [2, 2, 2, 2]
    gradients, stored = [], []
    for surrogate in (plain, saving):
        views = views_of(images(1)).requires_grad_()
        draw = draw_for(surrogate, views)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            condition = surrogate.condition(views, draw=draw)
            denoised = surrogate.denoise(condition, draw, frozenset(), True)
        assert denoised.prediction is not None
        gradients.append(torch.autograd.grad(denoised.prediction.square().mean(), views)[0])
        stored.append(sum(sizes))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-8, rtol=1e-3)
    assert stored[1] < 0.3 * stored[0]


def test_both_ways_into_the_model_carry_gradients() -> None:
    surrogate = surrogate_of(tiny_svd())
    views = views_of(images(1))
    draw = draw_for(surrogate, views)
    condition = surrogate.condition(views.requires_grad_(), draw=draw)
    assert condition.image_embedding is not None and condition.image_embedding.shape == (1, 1, 16)
    prediction = surrogate.denoise(condition, draw, frozenset(), True).prediction
    ways = [condition.latents, condition.image_embedding]
    for gradient in torch.autograd.grad(prediction.square().sum(), ways, retain_graph=True):
        assert gradient.abs().max() > 0
    for way in ways:
        (gradient,) = torch.autograd.grad(way.square().sum(), views, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_image_embedding_is_the_pipelines() -> None:
    pipeline = tiny_svd()
    for size in ((32, 240), (64, 32), (256, 448)):
        surrogate = surrogate_of(pipeline, height=size[0], width=size[1])
        pictures = images(2, size)
        with torch.no_grad():
            expected = pipeline._encode_image(pictures, torch.device("cpu"), 1, False)
            found = surrogate.condition(views_of(pictures)).image_embedding
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_noise_on_the_photo_is_standard_normal_and_one_per_draw() -> None:
    surrogate = surrogate_of(tiny_svd())
    views = views_of(images(2))
    draw = draw_for(surrogate, views)
    noise = svd.augmentation_noise(draw, views)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(noise, svd.augmentation_noise(draw, 1 - views))
    assert not torch.allclose(noise[0], noise[1])
    other = svd.augmentation_noise(draw_for(surrogate, views, seed=9), views)
    assert not torch.allclose(noise, other)
    clean = surrogate.condition(views).latents
    assert not torch.equal(clean, surrogate.condition(views, draw=draw).latents)


def test_timesteps_are_quantiles_of_the_training_distribution() -> None:
    sigmas = svd.sigma_quantiles(0.7, 1.6)
    expected = stats.lognorm(s=1.6, scale=math.exp(0.7)).ppf((np.arange(1000) + 0.5) / 1000)
    np.testing.assert_allclose(sigmas.numpy(), expected, rtol=1e-5)
    assert sigmas[0] > 0.002 and sigmas[-1] < 700  # the published sampling range
    moved = surrogate_of(tiny_svd(), log_sigma_mean=1.0).modules[0].sigmas
    torch.testing.assert_close(moved, sigmas * math.exp(0.3))


def test_target_is_what_the_preconditioned_network_should_answer() -> None:
    """Karras et al. 2022, equation 8: x_0 = c_skip x + c_out F, with SVD's factors."""
    surrogate = surrogate_of(tiny_svd())
    views = views_of(images(2))
    draw = draw_for(surrogate, views)
    target = surrogate.denoise(surrogate.condition(views), draw, frozenset(), False).target
    sigma = surrogate.modules[0].sigmas[draw.timesteps].reshape(-1, 1, 1, 1, 1).double()
    noisy = draw.clip_latents + sigma * draw.noise
    clean = noisy / (sigma**2 + 1) - sigma / (sigma**2 + 1).sqrt() * target
    torch.testing.assert_close(clean, draw.clip_latents.double(), atol=1e-4, rtol=1e-4)


def test_clip_latents_decode_to_what_the_autoencoder_alone_makes() -> None:
    pipeline = tiny_svd()
    surrogate = surrogate_of(pipeline, height=32, width=32)
    clip = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    latents = surrogate.encode_clip(clip)
    assert latents.shape == (2, 3, 4, 4, 4)
    with torch.no_grad():
        found = pipeline.decode_latents(latents, 3, 3)
        expected = pipeline.vae(clip.flatten(0, 1) * 2 - 1, num_frames=3).sample
    expected = expected.unflatten(0, (2, 3)).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_bfloat16_surrogate_keeps_photos_and_answers_in_float32(tmp_path: Path) -> None:
    tiny_svd().save_pretrained(tmp_path)
    fields = {"name": "svd", "path": str(tmp_path), "height": 32, "width": 32}
    answers = []
    for dtype in ("bfloat16", "float32"):
        surrogate = SURROGATES.build({**fields, "dtype": dtype})
        weights = {p.dtype for m in surrogate.modules for p in m.parameters()}
        assert weights == {getattr(torch, dtype)}
        views = views_of(images(1, (32, 32))).requires_grad_()
        draw = draw_for(surrogate, views)
        condition = surrogate.condition(views, frozenset({"encoder.mid"}), draw)
        denoised = surrogate.denoise(condition, draw, frozenset({"mid"}), True)
        tensors = (
            condition.latents,
            condition.image_embedding,
            condition.features["encoder.mid"],
            denoised.prediction,
            denoised.target,
            denoised.features["mid"],
        )
        assert {t.dtype for t in tensors} == {torch.float32}
        (gradient,) = torch.autograd.grad(denoised.prediction.square().sum(), views)
        answers.append((denoised.prediction.flatten(), gradient.flatten()))
    for half, full in zip(*answers, strict=True):
        assert torch.nn.functional.cosine_similarity(half, full, dim=0) > 0.98


def test_sharded_and_half_precision_folders_load_without_a_decoder(tmp_path: Path) -> None:
    pipeline = tiny_svd()
    pipeline.save_pretrained(tmp_path / "whole")
    pipeline.save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    assert len(list((tmp_path / "parts" / "unet").glob("*.safetensors"))) > 2
    assert len(list((tmp_path / "parts" / "vae").glob("*.safetensors"))) > 2
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    weights = []
    for name in ("whole", "parts", "half"):
        fields = {"path": str(tmp_path / name), "height": 32, "width": 32}
        surrogate = SURROGATES.build({"name": "svd", **fields})
        weights.append({k: v for m in surrogate.modules for k, v in m.state_dict().items()})
        assert not any("decoder" in key for key in weights[-1])
    assert weights[0].keys() == weights[1].keys() == weights[2].keys()
    for key, value in weights[0].items():
        assert torch.equal(weights[1][key], value), key
        torch.testing.assert_close(weights[2][key], value, atol=1e-3, rtol=1e-3)


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_svd().save_pretrained(tmp_path)
    capfd.readouterr()
    SURROGATES.build({"name": "svd", "path": str(tmp_path), "height": 32, "width": 32})
    assert capfd.readouterr() == ("", "")


def test_wrong_folders_are_refused_with_the_remedy(tmp_path: Path) -> None:
    for path in ("stabilityai/stable-video-diffusion-img2vid", "embedded", ""):
        with pytest.raises(ValueError, match="hf download stabilityai/stable-video-diffusion"):
            SURROGATES.build({"name": "svd", "path": path})
    tiny_svd().save_pretrained(tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"timestep_type": "discrete"}))
    with pytest.raises(ValueError, match="timestep_type 'discrete'; expected 'continuous'"):
        SURROGATES.build({"name": "svd", "path": str(tmp_path)})


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float16"), ("num_frames", -1), ("fps", 0), ("log_sigma_std", 0.0), ("dtpye", "x")],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SURROGATES.build({"name": "svd", field: value})


def test_sizes_the_model_cannot_take_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        surrogate_of(tiny_svd(), height=40)
