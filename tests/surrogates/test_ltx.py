"""The LTX-Video adapter against diffusers' own transformer, autoencoder and pipeline."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXImageToVideoPipeline

from anti_i2v_lit.miniatures.ltx import tiny_ltx
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.ltx import LTXSurrogate, LTXSurrogateConfig, parts_of
from anti_i2v_lit.surrogates.ltx_networks import TappedLTXTransformer
from anti_i2v_lit.types import Draw

# Of different lengths: the mask of the padding differs.
PROMPTS = ["a person is talking", "smile"]
GRID = (2, 2, 2)


def pipeline_of() -> LTXImageToVideoPipeline:
    """A miniature whose posterior has no width: sampling it (pipeline) equals its mean (ours)."""
    pipeline = tiny_ltx()
    last = pipeline.vae.encoder.conv_out.conv
    with torch.no_grad():
        last.weight[-1] = 0
        last.bias[-1] = -30
    return pipeline


def surrogate_of(pipeline: Any = None, **fields: Any) -> LTXSurrogate:
    pipeline = tiny_ltx() if pipeline is None else copy.deepcopy(pipeline)
    config = LTXSurrogateConfig(**({"height": 64, "width": 64} | fields))
    return LTXSurrogate(config, parts_of(pipeline))


def photos(count: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(11))


def draws_of(surrogate: LTXSurrogate, views: torch.Tensor) -> Draw:
    clips = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(s) for s in (1, 2)]
    return surrogate.draw(surrogate.encode_clip(clips), generators, PROMPTS[: len(views)])


class Spy:
    """Records what the pipeline hands to its transformer and what comes back."""

    def __init__(self, transformer: Any) -> None:
        self.calls: list[tuple[dict, torch.Tensor]] = []
        self._forward = transformer.forward
        transformer.forward = self

    def __call__(self, **inputs):
        output = self._forward(**inputs)
        self.calls.append((inputs, output[0]))
        return output


@pytest.mark.parametrize(
    ("size", "frames", "rate"), [((64, 64), 9, 25.0), ((32, 96), 17, 24.0), ((64, 32), 9, 8.0)]
)
def test_prediction_is_the_one_inside_the_pipelines_sampling_step(
    tmp_path: Path, size: tuple[int, int], frames: int, rate: float
) -> None:
    pipeline_of().save_pretrained(tmp_path)
    fields = {"height": size[0], "width": size[1], "num_frames": frames, "frame_rate": rate}
    surrogate: Any = SURROGATES.build({"name": "ltx", "path": str(tmp_path), **fields})
    pipeline = LTXImageToVideoPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    spy = Spy(pipeline.transformer)
    pipeline(
        image=photos(2, *size),
        prompt=PROMPTS,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **fields,
    )
    assert len(spy.calls) == 3
    condition = surrogate.condition(photos(2, *size))
    unpack = pipeline._unpack_latents
    grid = (1 + (frames - 1) // 8, size[0] // 32, size[1] // 32)
    for inputs, output in spy.calls:
        given = unpack(inputs["hidden_states"], *grid).transpose(1, 2)
        expected = unpack(output, *grid).transpose(1, 2)
        torch.testing.assert_close(condition.latents, given[:, 0], atol=1e-5, rtol=1e-4)
        latents = given.clone()
        # The given frame must come from the photo, not from here.
        latents[:, 0] = 7.0
        # With a clean clip of zeros the noisy latents are sigma * noise.
        sigma = inputs["timestep"].amax(dim=1).double() / 1000
        draw = Draw(
            clip_latents=torch.zeros_like(latents),
            noise=(latents / sigma.reshape(-1, 1, 1, 1, 1)).float(),
            timesteps=surrogate.schedule.timesteps_of(sigma),
            prompts=tuple(PROMPTS),
        )
        found = surrogate.denoise(condition, draw, frozenset(), True).prediction
        assert expected.std() > 1e-3
        torch.testing.assert_close(found[:, 1:], expected[:, 1:], atol=2e-5, rtol=1e-4)
        assert not found[:, 0].any()


def test_the_pipelines_last_step_is_in_the_schedule() -> None:
    pipeline = tiny_ltx()
    surrogate = surrogate_of(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    call = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 500}
    pipeline.transformer.forward = lambda **inputs: (inputs["hidden_states"],)
    pipeline(photos(1), PROMPTS[0], guidance_scale=1.0, output_type="latent", **call)
    steps = surrogate.schedule.timesteps_of(pipeline.scheduler.sigmas[:-1])
    # 500 evenly spaced steps of a schedule of 1000.
    assert steps.max().item() == pytest.approx(999, abs=1e-3)
    assert (steps.diff() < 0).all() and steps.min() >= -1e-3


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_encoder_equals_the_autoencoders_own(frames: int) -> None:
    pipeline = tiny_ltx()
    vae = pipeline.vae
    clips = torch.rand(2, 3, frames, 32, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        mean = vae.encode(clips).latent_dist.mode()
    expected = pipeline._normalize_latents(
        mean, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    )
    encoder: Any = surrogate_of(pipeline).modules[1]
    found, _ = encoder(clips, frozenset())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert sum(p.numel() for p in encoder.parameters()) == sum(
        p.numel() for p in vae.encoder.parameters()
    )


def test_block_loop_equals_the_transformers_forward() -> None:
    model = tiny_ltx().transformer
    loop = TappedLTXTransformer(model, False)
    generator = torch.Generator().manual_seed(6)
    tokens = torch.randn(2, 8, 8, generator=generator)
    text = torch.randn(2, 128, model.config.caption_channels, generator=generator)
    mask = torch.arange(128) < torch.tensor([[5], [20]])
    times = torch.tensor([[10.0], [900.0]]) * (torch.arange(8) >= 4)
    scale = (8 / 25, 32.0, 32.0)
    blocks: list[torch.Tensor] = []
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda _m, _i, output: blocks.append(output))
    with torch.no_grad():
        expected = model(tokens, text, times, mask, *GRID, rope_interpolation_scale=scale).sample
        expected_blocks = list(blocks)
        taps = frozenset(loop.tap_names)
        found, features = loop(tokens, (text, mask), times, (GRID, scale), taps, True)
    assert torch.equal(found, expected)
    assert len(expected_blocks) == len(features) == 3
    for value, wanted in zip(features.values(), expected_blocks, strict=True):
        assert torch.equal(value, wanted)


def run_counted(
    surrogate: LTXSurrogate, taps: set[str], prediction: bool
) -> tuple[list[int], torch.Tensor | None]:
    """Forward and backward; how often each block began, and the photo's gradient."""
    counts = [0, 0, 0]
    model: Any = surrogate.modules[0]
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, block in enumerate(model.transformer.transformer_blocks)
    ]
    views = photos().requires_grad_()
    draw = draws_of(surrogate, views)
    denoised = surrogate.denoise(surrogate.condition(views), draw, frozenset(taps), prediction)
    values = [*denoised.features.values()]
    if denoised.prediction is not None:
        values.append(denoised.prediction)
    if values:
        sum(v.square().mean() for v in values).backward()
    for handle in handles:
        handle.remove()
    return counts, views.grad


def test_blocks_after_the_deepest_tap_do_not_run() -> None:
    surrogate = surrogate_of()
    assert run_counted(surrogate, {"block.0", "block.1"}, False)[0] == [1, 1, 0]
    assert run_counted(surrogate, {"block.0"}, True)[0] == [1, 1, 1]
    assert run_counted(surrogate, set(), False)[0] == [0, 0, 0]


def test_checkpointing_is_on_in_eval_mode_and_changes_nothing() -> None:
    plain, saving = (surrogate_of(activation_checkpointing=on) for on in (False, True))
    once, expected = run_counted(plain, {"block.1"}, True)
    twice, found = run_counted(saving, {"block.1"}, True)
    assert (once, twice) == ([1, 1, 1], [2, 2, 2])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


def test_target_is_the_flow_from_clean_to_noise() -> None:
    surrogate = surrogate_of()
    views = photos()
    draw = draws_of(surrogate, views)
    target = surrogate.denoise(surrogate.condition(views), draw, frozenset(), False).target
    assert torch.equal(target[:, 1:], (draw.noise - draw.clip_latents)[:, 1:])
    assert not target[:, 0].any()


def test_sharded_folder_loads_in_bfloat16_and_answers_in_float32(tmp_path: Path) -> None:
    tiny_ltx().save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").exists()
    fields = {"name": "ltx", "path": str(tmp_path), "height": 64, "width": 64}
    fields["prompt_cache"] = str(tmp_path / "prompts")
    half: Any = SURROGATES.build({**fields, "dtype": "bfloat16"})
    full: Any = SURROGATES.build(fields)
    assert {p.dtype for m in half.modules for p in m.parameters()} == {torch.bfloat16}
    answers = []
    for surrogate in (half, full):
        views = photos().requires_grad_()
        condition = surrogate.condition(views)
        denoised = surrogate.denoise(condition, draws_of(surrogate, views), frozenset(), True)
        assert denoised.prediction.dtype == condition.latents.dtype == torch.float32
        answers.append(denoised.prediction)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(answers[0].flatten(), answers[1].flatten(), dim=0) > 0.98
    # The next run finds embeddings and masks on disk, without the text encoder.
    again: Any = SURROGATES.build(fields)
    again._prompts._load = None
    views = photos()
    draw = draws_of(again, views)
    found = again.denoise(again.condition(views), draw, frozenset(), True).prediction
    torch.testing.assert_close(found, answers[1])


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download Lightricks/LTX-Video"):
        SURROGATES.build({"name": "ltx"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 48}, "multiples of 32"),
        ({"num_frames": 1}, "at least 9"),
        ({"num_frames": 12}, "multiple of 8"),
        ({"frame_rate": 0.0}, "frame_rate"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_bad_settings_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surrogate_of(**fields)
