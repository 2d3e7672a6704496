"""The Wan adapters against diffusers' own transformer, autoencoder and pipeline."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from PIL import Image
from transformers import UMT5EncoderModel

from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.wan import (
    Wan21Surrogate,
    Wan22Surrogate,
    WanSurrogate,
    WanSurrogateConfig,
)
from anti_i2v_lit.surrogates.wan_denoiser import TappedWanTransformer
from anti_i2v_lit.surrogates.wan_loading import parts_of
from anti_i2v_lit.types import Draw

# HTML entities and runs of spaces are cleaned before the tokenizer sees a prompt.
PROMPTS = ["a person  is &amp; talking", "smile"]
BUILDERS = {"wan_2_2": tiny_wan_2_2, "wan_2_1": tiny_wan_2_1}
CLASSES = {"wan_2_2": Wan22Surrogate, "wan_2_1": Wan21Surrogate}
SIDES = {"wan_2_2": 64, "wan_2_1": 32}
NAMES = sorted(BUILDERS)


def surrogate_of(name: str, pipeline: Any = None, **fields: Any) -> WanSurrogate:
    pipeline = BUILDERS[name]() if pipeline is None else copy.deepcopy(pipeline)
    sizes = {"height": SIDES[name], "width": SIDES[name]}
    return CLASSES[name](WanSurrogateConfig(**(sizes | fields)), parts_of(pipeline))


def photos(count: int, height: int, width: int) -> torch.Tensor:
    """8-bit photos, so that the pipeline's PIL images hold the same values."""
    pixels = torch.randint(
        0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(11)
    )
    return pixels / 255.0


def to_pil(photo: torch.Tensor) -> Image.Image:
    return Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8))


def draws_of(surrogate: WanSurrogate, views: torch.Tensor, seeds: tuple[int, ...] = (1, 2)) -> Draw:
    clips = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(s) for s in seeds]
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


def spied_calls(pipeline: Any, photo: torch.Tensor, prompt: str, num_frames: int) -> list:
    pipeline.set_progress_bar_config(disable=True)
    spy = Spy(pipeline.transformer)
    pipeline(
        image=to_pil(photo),
        prompt=prompt,
        height=photo.shape[-2],
        width=photo.shape[-1],
        num_frames=num_frames,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    assert len(spy.calls) == 3
    return spy.calls


def draw_at(surrogate: WanSurrogate, latents: torch.Tensor, time: torch.Tensor, prompt: str):
    """A draw whose noisy clip is `latents` where the network is told `time`, clean clip zero."""
    sigma = time.double().reshape(1) / 1000
    return Draw(
        clip_latents=torch.zeros_like(latents),
        noise=(latents / sigma).float(),
        timesteps=surrogate.schedule.timesteps_of(sigma),
        prompts=(prompt,),
    )


@pytest.mark.parametrize(("size", "frames"), [((64, 64), 5), ((32, 96), 9)])
def test_wan_2_2_predicts_as_inside_the_pipelines_sampling_step(
    tmp_path: Path, size: tuple[int, int], frames: int
) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path)
    sizes = {"height": size[0], "width": size[1], "num_frames": frames}
    surrogate: Any = SURROGATES.build({"name": "wan_2_2", "path": str(tmp_path), **sizes})
    pipeline = WanImageToVideoPipeline.from_pretrained(tmp_path)
    for photo, prompt in zip(photos(2, *size), PROMPTS, strict=True):
        condition = surrogate.condition(photo[None])
        for inputs, expected in spied_calls(copy.deepcopy(pipeline), photo, prompt, frames):
            hidden = inputs["hidden_states"]
            torch.testing.assert_close(condition.latents, hidden[:, :, 0], atol=1e-5, rtol=1e-4)
            latents = hidden.transpose(1, 2).clone()
            # The given frame must come from the photo, not from here.
            latents[:, 0] = 7.0
            assert inputs["timestep"].min() == 0
            draw = draw_at(surrogate, latents, inputs["timestep"].max(), prompt)
            found = surrogate.denoise(condition, draw, frozenset(), True).prediction
            assert found.std() > 1e-3
            wanted = expected.transpose(1, 2)
            torch.testing.assert_close(found[:, 1:], wanted[:, 1:], atol=2e-5, rtol=1e-4)
            assert not found[:, 0].any()


@pytest.mark.parametrize("frames", [5, 9])
def test_wan_2_1_predicts_as_inside_the_pipelines_sampling_step(
    tmp_path: Path, frames: int
) -> None:
    tiny_wan_2_1().save_pretrained(tmp_path)
    # At the size of CLIP's input its preprocessing has nothing to round.
    sizes = {"height": 32, "width": 32, "num_frames": frames}
    surrogate: Any = SURROGATES.build({"name": "wan_2_1", "path": str(tmp_path), **sizes})
    pipeline = WanImageToVideoPipeline.from_pretrained(tmp_path)
    for photo, prompt in zip(photos(2, 32, 32), PROMPTS, strict=True):
        condition = surrogate.condition(photo[None])
        for inputs, expected in spied_calls(copy.deepcopy(pipeline), photo, prompt, frames):
            image = inputs["encoder_hidden_states_image"]
            torch.testing.assert_close(condition.image_embedding, image, atol=1e-5, rtol=1e-4)
            latents = inputs["hidden_states"][:, :4].transpose(1, 2)
            draw = draw_at(surrogate, latents, inputs["timestep"], prompt)
            found = surrogate.denoise(condition, draw, frozenset(), True).prediction
            assert found.std() > 1e-3
            torch.testing.assert_close(found, expected.transpose(1, 2), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (48, 80)])
def test_image_tokens_follow_the_published_preprocessing(size: tuple[int, int]) -> None:
    pipeline = tiny_wan_2_1()
    surrogate = surrogate_of("wan_2_1", pipeline, height=size[0], width=size[1])
    photo = torch.nn.functional.interpolate(photos(1, 8, 8), size=size, mode="bilinear")
    photo = (photo * 255).round() / 255
    expected = pipeline.image_processor(images=to_pil(photo[0]), return_tensors="pt").pixel_values
    images: Any = surrogate.modules[2]
    found = images.preprocess(photo)
    # The published one rounds to 8 bits after the resize: at most one grey level, over the std.
    level = 1 / 255 / min(pipeline.image_processor.image_std)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1.01 * level
    tokens = pipeline.encode_image(to_pil(photo[0]))
    assert (images(photo) - tokens).norm() < 0.02 * tokens.norm()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_encoder_equals_the_autoencoders_own_and_leaves_nothing_behind(
    name: str, frames: int
) -> None:
    pipeline = BUILDERS[name]()
    clips = torch.rand(2, 3, frames, 32, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        mean = pipeline.vae.encode(clips).latent_dist.mode()
    shape = (1, -1, 1, 1, 1)
    config = pipeline.vae.config
    expected = mean - torch.tensor(config.latents_mean).reshape(shape)
    expected = expected / torch.tensor(config.latents_std).reshape(shape)
    encoder: Any = surrogate_of(name, pipeline).modules[1]
    for _ in range(2):
        found, _ = encoder(clips, frozenset())
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # A photo after a clip sees nothing of the clip.
    photo, _ = encoder(clips[:, :, :1], frozenset())
    torch.testing.assert_close(photo, expected[:, :, :1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_flow_from_chunk_to_chunk(name: str, checkpointing: bool) -> None:
    surrogate = surrogate_of(name, activation_checkpointing=checkpointing)
    reference = BUILDERS[name]().vae.requires_grad_(False)
    clips = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    weights = torch.randn(1, 4, 1, 1, generator=torch.Generator().manual_seed(6))
    gradients = []
    # The mean that is taken out of the latents is constant, so its gradient is zero.
    for encode in (
        lambda x: (
            reference.encode(x).latent_dist.mode()
            / torch.tensor(reference.config.latents_std).reshape(1, -1, 1, 1, 1)
        ),
        lambda x: surrogate.modules[1](x, frozenset())[0],
    ):
        leaf = clips.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((weights * encode(leaf)[:, :, -1]).sum(), leaf)
        gradients.append(gradient)
    # The last latent frame depends on the photo in the first chunk.
    assert gradients[0][:, :, 0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_block_loop_equals_the_transformers_forward(name: str) -> None:
    model = BUILDERS[name]().transformer
    loop = TappedWanTransformer(model, False)
    generator = torch.Generator().manual_seed(6)
    latents = torch.randn(2, model.config.in_channels, 2, 4, 4, generator=generator)
    text = torch.randn(2, 512, model.config.text_dim, generator=generator)
    image = torch.randn(2, 5, 16, generator=generator) if name == "wan_2_1" else None
    times = torch.tensor([10.0, 900.0])
    if name == "wan_2_2":
        times = times[:, None] * (torch.arange(8) >= 4)
    blocks: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, output: blocks.append(output))
    with torch.no_grad():
        expected = model(latents, times, text, image).sample
        expected_blocks = list(blocks)
        found, features = loop(latents, text, image, times, frozenset(loop.tap_names), True)
    assert torch.equal(found, expected)
    assert len(expected_blocks) == len(features) == 3
    for value, wanted in zip(features.values(), expected_blocks, strict=True):
        assert torch.equal(value, wanted)


def run_counted(
    surrogate: WanSurrogate, taps: set[str], prediction: bool
) -> tuple[list[int], torch.Tensor | None]:
    """Forward and backward; how often each block began, and the photo's gradient."""
    counts = [0, 0, 0]
    model: Any = surrogate.modules[0]
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, block in enumerate(model.transformer.blocks)
    ]
    views = photos(2, *surrogate.view_size).requires_grad_()
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


@pytest.mark.parametrize("name", NAMES)
def test_blocks_after_the_deepest_tap_do_not_run(name: str) -> None:
    surrogate = surrogate_of(name)
    assert run_counted(surrogate, {"block.0"}, False)[0] == [1, 0, 0]
    assert run_counted(surrogate, {"block.0", "block.1"}, False)[0] == [1, 1, 0]
    assert run_counted(surrogate, {"block.0"}, True)[0] == [1, 1, 1]
    assert run_counted(surrogate, set(), False)[0] == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_is_on_in_eval_mode_and_changes_nothing(name: str) -> None:
    pipeline = BUILDERS[name]()
    plain, saving = (
        surrogate_of(name, pipeline, activation_checkpointing=on) for on in (False, True)
    )
    once, expected = run_counted(plain, {"block.1"}, True)
    twice, found = run_counted(saving, {"block.1"}, True)
    assert (once, twice) == ([1, 1, 1], [2, 2, 2])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_stores_less(name: str) -> None:
    stored = {}
    for on in (False, True):
        surrogate = surrogate_of(name, activation_checkpointing=on)
        size = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            surrogate.condition(photos(2, *surrogate.view_size).requires_grad_())
        stored[on] = size
    assert stored[True] < 0.5 * stored[False]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_encoder_half_is_kept(name: str) -> None:
    pipeline = BUILDERS[name]()
    autoencoder = pipeline.vae
    kept = [*autoencoder.encoder.parameters(), *autoencoder.quant_conv.parameters()]
    found = surrogate_of(name, pipeline).modules[1]
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in kept)


def test_both_image_paths_of_wan_2_1_carry_gradients() -> None:
    surrogate = surrogate_of("wan_2_1")
    views = photos(1, 32, 32).requires_grad_()
    condition = surrogate.condition(views)
    assert condition.image_embedding is not None
    # Two latent frames of 4 channels, laid side by side.
    assert condition.latents.shape == (1, 8, 4, 4)
    for value in (condition.latents[:, 4:], condition.image_embedding):
        (gradient,) = torch.autograd.grad(value.square().sum(), views, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_target_is_the_flow_from_clean_to_noise(name: str) -> None:
    surrogate = surrogate_of(name)
    views = photos(2, *surrogate.view_size)
    draw = draws_of(surrogate, views)
    target = surrogate.denoise(surrogate.condition(views), draw, frozenset(), False).target
    expected = draw.noise - draw.clip_latents
    assert torch.equal(target[:, 1:], expected[:, 1:])
    # Wan2.2 is given the first frame and does not predict it.
    assert torch.equal(target[:, 0], expected[:, 0] * (name == "wan_2_1"))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_surrogate_keeps_photos_and_answers_in_float32(name: str, tmp_path: Path) -> None:
    BUILDERS[name]().save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").exists()
    fields = {"name": name, "path": str(tmp_path), "height": SIDES[name], "width": SIDES[name]}
    half: Any = SURROGATES.build({**fields, "dtype": "bfloat16"})
    full: Any = SURROGATES.build(fields)
    assert half.modules[0].transformer.proj_out.weight.dtype == torch.bfloat16
    # As the model cards run it: the autoencoder stays in float32.
    assert {p.dtype for p in half.modules[1].parameters()} == {torch.float32}
    answers = []
    for surrogate in (half, full):
        views = photos(2, *surrogate.view_size).requires_grad_()
        condition = surrogate.condition(views, frozenset({"encoder.mid"}))
        denoised = surrogate.denoise(
            condition, draws_of(surrogate, views), frozenset({"block.1"}), True
        )
        values = (condition.latents, denoised.prediction, denoised.features["block.1"])
        assert {v.dtype for v in values} == {torch.float32}
        (gradient,) = torch.autograd.grad(denoised.prediction.square().sum(), views)
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
        answers.append((denoised.prediction, gradient))
    cosine = torch.nn.functional.cosine_similarity
    for a, b in zip(*answers, strict=True):
        assert cosine(a.flatten(), b.flatten(), dim=0) > 0.98


def test_prompt_cache_serves_the_next_run_without_the_text_encoder(tmp_path: Path) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path / "model")
    fields = {"name": "wan_2_2", "path": str(tmp_path / "model"), "height": 64, "width": 64}
    fields["prompt_cache"] = str(tmp_path / "prompts")
    views = photos(2, 64, 64)
    first: Any = SURROGATES.build(fields)
    draw = draws_of(first, views)
    expected = first.denoise(first.condition(views), draw, frozenset(), True).prediction
    second: Any = SURROGATES.build(fields)
    second._prompts._load = None
    found = second.denoise(second.condition(views), draw, frozenset(), True).prediction
    assert torch.equal(found, expected)


def test_known_prompts_are_embedded_before_the_transformer_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path)
    order: list[str] = []
    for owner in (UMT5EncoderModel, WanTransformer3DModel):
        load = owner.from_pretrained

        def logged(*args: Any, _load: Any = load, _name: str = owner.__name__, **kw: Any) -> Any:
            order.append(_name)
            return _load(*args, **kw)

        monkeypatch.setattr(owner, "from_pretrained", logged)
    fields = {"name": "wan_2_2", "path": str(tmp_path), "height": 64, "width": 64}
    surrogate: Any = SURROGATES.build({**fields, "prompts": PROMPTS})
    views = photos(2, 64, 64)
    surrogate.denoise(surrogate.condition(views), draws_of(surrogate, views), frozenset(), True)
    assert order == ["UMT5EncoderModel", "WanTransformer3DModel"]


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    for path in ("", "embedded", "Wan-AI/Wan2.2-TI2V-5B"):
        with pytest.raises(ValueError, match="hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers"):
            SURROGATES.build({"name": "wan_2_2", "path": path})
    with pytest.raises(ValueError, match="hf download Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"):
        SURROGATES.build({"name": "wan_2_1"})


def test_models_of_the_other_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use the surrogate wan_2_1"):
        surrogate_of("wan_2_2", tiny_wan_2_1())
    with pytest.raises(ValueError, match="use the surrogate wan_2_2"):
        surrogate_of("wan_2_1", tiny_wan_2_2())
    tiny_wan_2_2().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks image_encoder/config.json"):
        SURROGATES.build({"name": "wan_2_1", "path": str(tmp_path)})


def test_foreign_scheduler_is_refused(tmp_path: Path) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "DDIMScheduler", "num_train_timesteps": 1000}))
    with pytest.raises(ValueError, match="rectified flow"):
        SURROGATES.build({"name": "wan_2_2", "path": str(tmp_path), "height": 64, "width": 64})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 48}, "multiples of 32"),
        ({"num_frames": 1}, "at least 5"),
        ({"num_frames": 7}, "multiple of 4"),
    ],
)
def test_sizes_and_lengths_the_model_cannot_take_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surrogate_of("wan_2_2", **fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float16"), ("encoder_dtype", "x"), ("num_frames", -1), ("dtpye", "x")],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field.replace("encoder_", "")):
        SURROGATES.build({"name": "wan_2_2", field: value})
