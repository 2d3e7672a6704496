"""The CogVideoX adapter against diffusers' own transformer and pipeline."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline

from anti_i2v_lit.checkpoints import COGVIDEOX, EMBEDDED, checkpoint_folder
from anti_i2v_lit.miniatures import TEXT_TOKENS, tiny_cogvideox
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate, CogVideoXSurrogateConfig
from anti_i2v_lit.surrogates.cogvideox_denoiser import TappedTransformer
from anti_i2v_lit.surrogates.cogvideox_loading import parts_of
from anti_i2v_lit.types import Draw

# (generation, video frames per latent frame, video frames); 9 frames of 1.5 need a padding frame.
VARIANTS = [
    ("1.0", 4, 5),
    ("1.0", 4, 9),
    ("1.0", 1, 5),
    ("1.5", 4, 5),
    ("1.5", 4, 9),
    ("2B", 4, 9),
]
PROMPTS = ["a person is talking", "smile"]


def pipeline_of(generation: str, ratio: int, frames: int) -> CogVideoXImageToVideoPipeline:
    """A miniature whose posterior has no width: sampling it (pipeline) equals its mean (ours)."""
    pipeline = tiny_cogvideox(generation, temporal_ratio=ratio, num_frames=frames)
    last = pipeline.vae.encoder.conv_out.conv
    with torch.no_grad():
        half = last.weight.shape[0] // 2
        last.weight[half:] = 0
        last.bias[half:] = -30
    return pipeline


def surrogate_of(pipeline: CogVideoXImageToVideoPipeline, **fields) -> CogVideoXSurrogate:
    return CogVideoXSurrogate(CogVideoXSurrogateConfig(**fields), parts_of(copy.deepcopy(pipeline)))


def photos(count: int = 2, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(11))


class Spy:
    """Records what the pipeline hands to its transformer and what comes back."""

    def __init__(self, transformer) -> None:
        self.calls: list[tuple[dict, torch.Tensor]] = []
        self._forward = transformer.forward
        transformer.forward = self

    def __call__(self, **inputs):
        output = self._forward(**inputs)
        self.calls.append((inputs, output[0]))
        return output


@pytest.mark.parametrize(("generation", "ratio", "frames"), VARIANTS)
def test_prediction_is_the_one_inside_the_pipelines_sampling_step(
    tmp_path: Path, generation: str, ratio: int, frames: int
) -> None:
    pipeline_of(generation, ratio, frames).save_pretrained(tmp_path)
    surrogate = SURROGATES.build({"name": "cogvideox", "path": str(tmp_path)})
    assert surrogate.view_size == (32, 32) and surrogate.num_frames == frames
    pipeline = CogVideoXImageToVideoPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    spy = Spy(pipeline.transformer)
    pipeline(
        image=photos(),
        prompt=PROMPTS,
        num_frames=frames,
        num_inference_steps=3,
        guidance_scale=1.0,
        max_sequence_length=TEXT_TOKENS,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    condition = surrogate.condition(photos())
    assert len(spy.calls) == 3
    for inputs, expected in spy.calls:
        latents = inputs["hidden_states"].chunk(2, dim=2)[0]
        # With a clean clip of zeros the noisy latents are sigma * noise.
        sigma = (1 - pipeline.scheduler.alphas_cumprod[inputs["timestep"]]).sqrt().float()
        draw = Draw(
            clip_latents=torch.zeros_like(latents),
            noise=latents / sigma.reshape(-1, 1, 1, 1, 1),
            timesteps=inputs["timestep"],
            prompts=tuple(PROMPTS),
        )
        found = surrogate.denoise(condition, draw, frozenset(), True).prediction
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (16, 32), (32, 16)])
def test_other_sizes_follow_the_pipeline(size: tuple[int, int]) -> None:
    pipeline = pipeline_of("1.5", 4, 5)
    surrogate = surrogate_of(pipeline, height=size[0], width=size[1], num_frames=13)
    pipeline.set_progress_bar_config(disable=True)
    spy = Spy(pipeline.transformer)
    pipeline(
        image=photos(1, size),
        prompt=PROMPTS[0],
        height=size[0],
        width=size[1],
        num_frames=13,
        num_inference_steps=1,
        guidance_scale=1.0,
        max_sequence_length=TEXT_TOKENS,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    inputs, expected = spy.calls[0]
    clip = photos(1, size)[:, None].expand(-1, 13, -1, -1, -1)
    latents = inputs["hidden_states"].chunk(2, dim=2)[0]
    assert surrogate.encode_clip(clip).shape == latents.shape
    sigma = (1 - pipeline.scheduler.alphas_cumprod[inputs["timestep"]]).sqrt().float()
    draw = Draw(
        clip_latents=torch.zeros_like(latents),
        noise=latents / sigma,
        timesteps=inputs["timestep"],
        prompts=(PROMPTS[0],),
    )
    found = surrogate.denoise(surrogate.condition(photos(1, size)), draw, frozenset(), True)
    torch.testing.assert_close(found.prediction, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("generation", "ratio", "frames"), VARIANTS)
def test_clip_latents_decode_to_what_the_autoencoder_alone_makes(
    generation: str, ratio: int, frames: int
) -> None:
    pipeline = pipeline_of(generation, ratio, frames)
    clip = torch.rand(1, frames, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    latents = surrogate_of(pipeline).encode_clip(clip)
    own = 1 + (frames - 1) // ratio
    with torch.no_grad():
        # The pipeline drops the leading padding and undoes the scale before it decodes.
        found = pipeline.decode_latents(latents[:, latents.shape[1] - own :])
        video = clip.transpose(1, 2) * 2 - 1
        expected = pipeline.vae.decode(pipeline.vae.encode(video).latent_dist.mode()).sample
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("generation", "ratio", "frames"), VARIANTS)
def test_block_loop_equals_the_transformers_forward(
    generation: str, ratio: int, frames: int
) -> None:
    pipeline = pipeline_of(generation, ratio, frames)
    model = pipeline.transformer
    loop = TappedTransformer(model, pipeline.scheduler.alphas_cumprod, False)
    generator = torch.Generator().manual_seed(6)
    depth = {5: 2, 9: 4 if generation == "1.5" else 3}[frames] if ratio == 4 else frames
    latents = torch.randn(2, depth, model.config.in_channels, 4, 4, generator=generator)
    text = torch.randn(2, TEXT_TOKENS, model.config.text_embed_dim, generator=generator)
    steps = torch.tensor([10, 900])
    rotary = pipeline._prepare_rotary_positional_embeddings(32, 32, depth, torch.device("cpu"))
    blocks: list[torch.Tensor] = []
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda _m, _i, output: blocks.append(output[0]))
    with torch.no_grad():
        expected = model(
            latents, text, steps, ofs=torch.full((1,), 2.0), image_rotary_emb=rotary
        ).sample
        expected_blocks = list(blocks)
        found, features = loop(latents, text, steps, rotary, frozenset(loop.tap_names), True)
    assert torch.equal(found, expected)
    assert len(expected_blocks) == len(features) == 3
    for value, wanted in zip(features.values(), expected_blocks, strict=True):
        assert torch.equal(value, wanted)


def run_counted(
    surrogate: CogVideoXSurrogate, taps: set[str], prediction: bool
) -> tuple[list[int], torch.Tensor | None]:
    """Forward and backward; how often each block began, and the photo's gradient."""
    counts = [0, 0, 0]
    transformer = surrogate.modules[0].transformer
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, block in enumerate(transformer.transformer_blocks)
    ]
    views = photos().requires_grad_()
    latents = surrogate.encode_clip(views.detach()[:, None].expand(-1, 5, -1, -1, -1))
    draw = surrogate.draw(latents, [torch.Generator().manual_seed(i) for i in (1, 2)], PROMPTS)
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
    surrogate = CogVideoXSurrogate.tiny()
    assert run_counted(surrogate, {"block.0"}, False)[0] == [1, 0, 0]
    assert run_counted(surrogate, {"block.0", "block.1"}, False)[0] == [1, 1, 0]
    assert run_counted(surrogate, {"block.0"}, True)[0] == [1, 1, 1]
    assert run_counted(surrogate, set(), False)[0] == [0, 0, 0]


def test_checkpointing_is_on_in_eval_mode_and_changes_nothing() -> None:
    pipeline = tiny_cogvideox()
    plain, saving = (surrogate_of(pipeline, activation_checkpointing=on) for on in (False, True))
    once, expected = run_counted(plain, {"block.1"}, True)
    twice, found = run_counted(saving, {"block.1"}, True)
    assert (once, twice) == ([1, 1, 1], [2, 2, 2])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)


def test_checkpointing_stores_less() -> None:
    pipeline = tiny_cogvideox()
    stored = {}
    for on in (False, True):
        surrogate = surrogate_of(pipeline, activation_checkpointing=on)
        size = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            views = photos().requires_grad_()
            surrogate.condition(views)
        stored[on] = size
    assert stored[True] < 0.5 * stored[False]


def test_video_tokens_are_tapped_without_the_text() -> None:
    surrogate = CogVideoXSurrogate.tiny()
    views = photos()
    draw = surrogate.draw(
        surrogate.encode_clip(views[:, None].expand(-1, 5, -1, -1, -1)),
        [torch.Generator().manual_seed(i) for i in (1, 2)],
        PROMPTS,
    )
    denoised = surrogate.denoise(surrogate.condition(views), draw, frozenset({"block.2"}), False)
    # 5 video frames are 2 latent frames of 4 x 4, patched by 2: 8 tokens of 2 heads x 16.
    assert denoised.features["block.2"].shape == (2, 8, 32)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_target_is_the_one_of_the_scheduler(kind: str) -> None:
    pipeline = tiny_cogvideox()
    pipeline.scheduler.register_to_config(prediction_type=kind)
    surrogate = surrogate_of(pipeline)
    latents = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    draw = surrogate.draw(latents, [torch.Generator().manual_seed(i) for i in (1, 2)], PROMPTS)
    target = surrogate.denoise(surrogate.condition(photos()), draw, frozenset(), False).target
    expected = {
        "epsilon": draw.noise,
        "sample": latents,
        "v_prediction": pipeline.scheduler.get_velocity(latents, draw.noise, draw.timesteps),
    }[kind]
    torch.testing.assert_close(target, expected)


def test_bfloat16_surrogate_keeps_photos_and_answers_in_float32(tmp_path: Path) -> None:
    pipeline_of("1.0", 4, 5).save_pretrained(tmp_path)
    fields = {"name": "cogvideox", "path": str(tmp_path)}
    half = SURROGATES.build({**fields, "dtype": "bfloat16"})
    full = SURROGATES.build(fields)
    weights = {p.dtype for m in half.modules for p in m.parameters()}
    assert weights == {torch.bfloat16}
    answers = []
    for surrogate in (half, full):
        views = photos().requires_grad_()
        condition = surrogate.condition(views, frozenset({"encoder.mid"}))
        latents = surrogate.encode_clip(views.detach()[:, None].expand(-1, 5, -1, -1, -1))
        draw = surrogate.draw(latents, [torch.Generator().manual_seed(i) for i in (1, 2)], PROMPTS)
        denoised = surrogate.denoise(condition, draw, frozenset({"block.1"}), True)
        assert {
            t.dtype
            for t in (
                condition.latents,
                condition.features["encoder.mid"],
                latents,
                denoised.target,
                denoised.prediction,
                denoised.features["block.1"],
            )
        } == {torch.float32}
        (gradient,) = torch.autograd.grad(denoised.prediction.square().sum(), views)
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
        answers.append((denoised.prediction, gradient))
    cosine = torch.nn.functional.cosine_similarity
    for a, b in zip(*answers, strict=True):
        assert cosine(a.flatten(), b.flatten(), dim=0) > 0.98


def test_single_frame_clips_work() -> None:
    pipeline = tiny_cogvideox(num_frames=1)
    surrogate = surrogate_of(pipeline)
    latents = surrogate.encode_clip(photos(1)[:, None])
    draw = surrogate.draw(latents, [torch.Generator().manual_seed(1)], PROMPTS[:1])
    denoised = surrogate.denoise(surrogate.condition(photos(1)), draw, frozenset(), True)
    assert denoised.prediction is not None and denoised.prediction.shape == (1, 1, 4, 4, 4)


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download zai-org/CogVideoX-5b-I2V"):
        SURROGATES.build({"name": "cogvideox", "path": "THUDM/CogVideoX-5b-I2V"})


def test_incomplete_folder_names_what_is_missing(tmp_path: Path) -> None:
    tiny_cogvideox().save_pretrained(tmp_path)
    for file in (tmp_path / "vae").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"lacks vae/config.json, vae/\*.safetensors"):
        SURROGATES.build({"name": "cogvideox", "path": str(tmp_path)})


def test_text_to_video_folder_is_refused(tmp_path: Path) -> None:
    pipeline = tiny_cogvideox()
    config = dict(pipeline.transformer.config) | {"in_channels": 4}
    pipeline.transformer = type(pipeline.transformer).from_config(config)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="text-to-video"):
        SURROGATES.build({"name": "cogvideox", "path": str(tmp_path)})


def test_foreign_scheduler_is_refused(tmp_path: Path) -> None:
    tiny_cogvideox().save_pretrained(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "PNDMScheduler"}))
    with pytest.raises(ValueError, match="CogVideoX scheduler class 'PNDMScheduler'"):
        SURROGATES.build({"name": "cogvideox", "path": str(tmp_path)})


def test_sizes_the_model_cannot_take_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        surrogate_of(tiny_cogvideox("1.5"), height=40)
    with pytest.raises(ValueError, match="learned positions for 32 x 32"):
        surrogate_of(tiny_cogvideox("1.0"), height=48, width=48)
    with pytest.raises(ValueError, match="rotary positions end at 32 x 32"):
        surrogate_of(tiny_cogvideox("1.5"), height=48)
    with pytest.warns(UserWarning, match="sinusoidal"):
        surrogate_of(tiny_cogvideox("1.0"), num_frames=9)


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "float16"), ("num_frames", -1), ("height", -8), ("dtpye", "x")]
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SURROGATES.build({"name": "cogvideox", field: value})


def test_unpadded_latents_of_the_newer_model_are_refused() -> None:
    surrogate = surrogate_of(tiny_cogvideox("1.5", num_frames=9))
    condition = surrogate.condition(photos(1))
    draw = surrogate.draw(
        torch.zeros(1, 3, 4, 4, 4), [torch.Generator().manual_seed(0)], PROMPTS[:1]
    )
    with pytest.raises(ValueError, match="multiple of 2 latent frames, got 3"):
        surrogate.denoise(condition, draw, frozenset(), True)


def test_packaged_model_loads_and_carries_gradients() -> None:
    try:
        checkpoint_folder(EMBEDDED, COGVIDEOX)
    except ValueError as error:
        pytest.skip(f"packaged weights are absent: {error}")
    surrogate = SURROGATES.build({"name": "cogvideox"})
    assert surrogate.view_size == (128, 128) and surrogate.num_frames == 5
    views = photos(1, surrogate.view_size).requires_grad_()
    clip = views.detach()[:, None].expand(-1, 5, -1, -1, -1)
    draw = surrogate.draw(
        surrogate.encode_clip(clip), [torch.Generator().manual_seed(0)], PROMPTS[:1]
    )
    denoised = surrogate.denoise(surrogate.condition(views), draw, frozenset(), True)
    assert denoised.prediction is not None
    denoised.prediction.square().mean().backward()
    assert views.grad is not None and views.grad.isfinite().all() and views.grad.abs().max() > 0
