"""The Open-Sora adapter: published numbers, published layout, memory, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.open_sora.captions import caption_of
from anti_i2v_lit.surrogates.open_sora.flow import sampling_timesteps, shift_of, shifted
from anti_i2v_lit.surrogates.open_sora.loading import (
    AUTOENCODER,
    DENOISER,
    _empty_autoencoder,
    load_autoencoder,
)
from anti_i2v_lit.surrogates.open_sora.miniature import MAX_WORDS, save_tiny, tiny_text_model
from anti_i2v_lit.surrogates.open_sora.surrogate import OpenSoraSurrogate, OpenSoraSurrogateConfig
from anti_i2v_lit.types import Draw
from tests.surrogates.open_sora.patterned import (
    FRAMES,
    PROMPT,
    SIZE,
    patterned_parts,
    photo,
    published,
    waves,
)

PROMPTS = ["a person is talking", "smile"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as its authors publish the model."""
    path = tmp_path_factory.mktemp("open_sora") / "model"
    save_tiny(path)
    return path


def photos(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(11))


def built(folder: Path, **fields: object) -> OpenSoraSurrogate:
    node = {"name": "open_sora", "path": str(folder), "height": 32, "width": 48, **fields}
    surrogate = SURROGATES.build(node)
    assert isinstance(surrogate, OpenSoraSurrogate)
    return surrogate


def draw_for(surrogate: OpenSoraSurrogate, views: Tensor) -> Draw:
    clip = views.detach()[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    generators = [torch.Generator().manual_seed(i) for i in range(len(views))]
    latents = surrogate.encode_clip(clip)
    return surrogate.draw(latents, generators, PROMPTS[: len(views)])


def test_velocity_and_loss_are_the_published_ones_under_the_same_noise() -> None:
    numbers = published()
    config = OpenSoraSurrogateConfig(height=SIZE[0], width=SIZE[1], num_frames=FRAMES)
    surrogate = OpenSoraSurrogate(config, patterned_parts())
    condition = surrogate.condition(photo())
    image = torch.tensor(numbers["image"]).reshape(1, 4, 2, 3)
    torch.testing.assert_close(condition.latents, image, atol=1e-5, rtol=1e-4)
    shape = (1, 5, 4, 2, 3)
    draw = Draw(
        clip_latents=waves(shape, 0.61),
        noise=waves(shape, 1.13),
        timesteps=torch.tensor([399]),  # the published clock counts from 1 to 1000
        prompts=(PROMPT,),
    )
    denoised = surrogate.denoise(condition, draw, frozenset(), True)
    velocity = torch.tensor(numbers["velocity"]).reshape(1, 4, 5, 2, 3).transpose(1, 2)
    assert denoised.prediction is not None
    torch.testing.assert_close(denoised.prediction[:, 1:], velocity[:, 1:], atol=1e-5, rtol=1e-4)
    # The first frame is given: as in training, it has no part in the loss.
    squares = (denoised.prediction - denoised.target).square()
    assert squares[:, 0].max() == 0
    assert squares[:, 1:].mean().item() == pytest.approx(numbers["loss"], rel=1e-4)


def test_tiny_goes_through_the_same_loading_code(folder: Path) -> None:
    loaded, tiny = built(folder), OpenSoraSurrogate.tiny()
    views = photos()
    answers = []
    for surrogate in (loaded, tiny):
        condition = surrogate.condition(views, frozenset(surrogate.encoder_taps))
        taps = frozenset(surrogate.denoiser_taps)
        denoised = surrogate.denoise(condition, draw_for(surrogate, views), taps, True)
        assert denoised.prediction is not None
        answers.append([denoised.prediction, *denoised.features.values(), condition.latents])
        answers[-1] += condition.features.values()
    assert len(answers[0]) == len(answers[1]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))


def test_a_surrogate_holds_no_decoder_and_no_text_encoder(folder: Path) -> None:
    names = [name for m in built(folder).modules for name, _ in m.named_parameters()]
    assert names and not [n for n in names if "decoder" in n or "post_quant" in n or "t5" in n]


def test_taps_are_the_outputs_of_the_autoencoders_own_modules(folder: Path) -> None:
    surrogate, whole = built(folder), load_autoencoder(folder, torch.float32)
    plane = whole.spatial_vae.module.encoder
    sources = {"spatial.conv_in": plane.conv_in, "spatial.mid": plane.mid_block}
    sources |= {f"spatial.down.{i}": block for i, block in enumerate(plane.down_blocks)}
    sources["temporal.conv_in"] = whole.temporal_vae.encoder.conv_in
    sources["temporal.mid"] = whole.temporal_vae.encoder.res_blocks[-1]
    seen: dict[str, Tensor] = {}
    for name, module in sources.items():
        module.register_forward_hook(lambda _m, _i, o, name=name: seen.__setitem__(name, o))
    with torch.no_grad():
        expected = whole.encode(photos()[:, :, None] * 2 - 1)[:, :, 0]
        condition = surrogate.condition(photos(), frozenset(surrogate.encoder_taps))
    torch.testing.assert_close(condition.latents, expected, atol=1e-5, rtol=1e-5)
    assert set(seen) < set(condition.features) == set(surrogate.encoder_taps)
    for name, value in seen.items():
        value = value[:, :, -1] if value.ndim == 5 else value
        torch.testing.assert_close(condition.features[name], value, atol=1e-5, rtol=1e-5)


def test_long_clips_are_encoded_in_pieces_of_seventeen(folder: Path) -> None:
    whole = load_autoencoder(folder, torch.float32)
    clip = torch.randn(1, 3, 20, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = whole.encode(clip)
        parts = [whole.encode(clip[:, :, :17]), whole.encode(clip[:, :, 17:])]
        assert found.shape[2] == whole.num_latent_frames(20) == 6
        torch.testing.assert_close(found, torch.cat(parts, dim=2), atol=1e-5, rtol=1e-5)
        assert whole.decode(found, 20).shape == clip.shape


def run_counted(
    surrogate: OpenSoraSurrogate, taps: set[str], prediction: bool
) -> tuple[list[int], Tensor | None]:
    """Forward and backward; how often each block began, and the photo's gradient."""
    blocks = surrogate.modules[0].model.blocks()
    counts = [0] * len(blocks)
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, block in enumerate(blocks)
    ]
    views = photos().requires_grad_()
    condition, draw = surrogate.condition(views), draw_for(surrogate, views)
    denoised = surrogate.denoise(condition, draw, frozenset(taps), prediction)
    values = [*denoised.features.values()]
    values += [] if denoised.prediction is None else [denoised.prediction]
    if values:
        sum(v.square().mean() for v in values).backward()
    for handle in handles:
        handle.remove()
    return counts, views.grad


def test_blocks_after_the_deepest_tap_do_not_run() -> None:
    surrogate = OpenSoraSurrogate.tiny()
    assert run_counted(surrogate, {"spatial.0"}, False)[0] == [1, 0, 0, 0, 0, 0]
    assert run_counted(surrogate, {"spatial.0", "temporal.1"}, False)[0] == [1, 1, 1, 1, 0, 0]
    assert run_counted(surrogate, {"spatial.0"}, True)[0] == [1] * 6
    assert run_counted(surrogate, set(), False)[0] == [0] * 6


def test_checkpointing_is_on_in_eval_mode_and_changes_nothing(folder: Path) -> None:
    plain, saving = (built(folder, activation_checkpointing=on) for on in (False, True))
    once, expected = run_counted(plain, {"temporal.1"}, True)
    twice, found = run_counted(saving, {"temporal.1"}, True)
    assert (once, twice) == ([1] * 6, [2] * 6)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)


def test_checkpointing_stores_less(folder: Path) -> None:
    stored = {}
    for on in (False, True):
        surrogate, size = built(folder, activation_checkpointing=on), 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        views = photos().requires_grad_()
        draw = draw_for(surrogate, views)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            surrogate.denoise(surrogate.condition(views), draw, frozenset(), True)
        stored[on] = size
    assert stored[True] < 0.3 * stored[False]


def test_bfloat16_surrogate_keeps_photos_and_answers_in_float32(folder: Path) -> None:
    half, full = built(folder, dtype="bfloat16"), built(folder)
    assert {p.dtype for m in half.modules for p in m.parameters()} == {torch.bfloat16}
    answers = []
    for surrogate in (half, full):
        views = photos().requires_grad_()
        condition = surrogate.condition(views, frozenset({"temporal.mid"}))
        draw = draw_for(surrogate, views)
        denoised = surrogate.denoise(condition, draw, frozenset({"temporal.1"}), True)
        assert denoised.prediction is not None
        values = [condition.latents, denoised.target, denoised.prediction]
        values += [*condition.features.values(), *denoised.features.values()]
        assert {value.dtype for value in values} == {torch.float32}
        (gradient,) = torch.autograd.grad(denoised.prediction.square().sum(), views)
        answers.append((denoised.prediction.detach(), gradient))
    for a, b in zip(*answers, strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.97


@pytest.mark.parametrize("size", [(240, 426), (640, 640), (480, 854)])
def test_clock_is_the_shifted_one_of_diffusers(size: tuple[int, int]) -> None:
    shift = shift_of(size, 51, 15)
    assert shift == pytest.approx((size[0] * size[1] * 15) ** 0.5 / 512)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    found = shifted(torch.arange(1000, 0, -1), shift)
    torch.testing.assert_close(found, scheduler.timesteps, atol=1e-3, rtol=1e-5)
    steps = sampling_timesteps(30, shift)
    assert len(steps) == 31 and steps[0] == 1000 and steps[-1] == 0
    assert (steps[:-1] > steps[1:]).all()


def test_short_clips_have_noise_too() -> None:
    assert shift_of((512, 512), 1, 1) == 1.0
    assert shift_of((512, 512), 5, 2) == pytest.approx(2**0.5)
    assert shift_of((512, 512), 17, 5) == shift_of((512, 512), 20, 6) == pytest.approx(5**0.5)


@pytest.mark.parametrize(
    ("prompt", "score", "expected"),
    [
        # What the published cleaning made of these.
        ("A person is talking.", 6.5, "a person is talking. aesthetic score: 6.5."),
        (
            "Smile, and look left-right; 'yes'!",
            6.5,
            "smile, and look left-right; 'yes'! aesthetic score: 6.5.",
        ),
        (
            "A man (40) walks — “slowly”…",
            6.5,
            'a man 40 walks - "slowly"… aesthetic score: 6.5.',
        ),
        (
            "It's 10:30. The dog's ball [red] / blue",
            6.5,
            "it's 10:30. the dog's ball red blue aesthetic score: 6.5.",
        ),
        ("hello,world", 6.5, "hello, world aesthetic score: 6.5."),
        (
            "A very well-known, state-of-the-art, old-fashioned look",
            6.5,
            "a very well known, state of the art, old fashioned look aesthetic score: 6.5.",
        ),
        ("A cat &amp; a dog. aesthetic score: 5.0.", 6.5, "a cat a dog. aesthetic score: 5.0."),
        ("A cat.", 0.0, "a cat."),
    ],
)
def test_captions_are_worded_as_in_training(prompt: str, score: float, expected: str) -> None:
    assert caption_of(prompt, score) == expected


def test_published_caption_is_ours() -> None:
    assert caption_of(PROMPT, 6.5) == published()["caption"]


def test_padding_changes_no_word_and_is_marked() -> None:
    tokenizer, encoder = tiny_text_model()
    padded = tokenizer(["smile"], padding="max_length", max_length=MAX_WORDS, return_tensors="pt")
    bare = tokenizer(["smile"], return_tensors="pt").input_ids
    length = bare.shape[1]
    with torch.no_grad():
        found = encoder(padded.input_ids)[0][0]
        expected = encoder.encoder(bare).last_hidden_state[0]
    torch.testing.assert_close(found[:length, :-1], expected, atol=1e-5, rtol=1e-4)
    assert found[:, -1].tolist() == padded.attention_mask[0].tolist()
    assert found[:, -1].sum() == length


def test_prompts_of_the_configuration_are_embedded_while_loading(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = built(folder, prompt_cache=str(cache), prompts=PROMPTS)
    assert len(list(cache.iterdir())) == 2
    views = photos()
    second = built(folder, prompt_cache=str(cache))
    second._prompts._load = None  # the second run must not need the text encoder
    answers = [
        s.denoise(s.condition(views), draw_for(s, views), frozenset(), True).prediction
        for s in (first, second)
    ]
    assert answers[0] is not None and answers[1] is not None
    assert torch.equal(answers[0], answers[1])


@pytest.mark.parametrize("num_frames", [1, 4])
def test_clips_that_are_only_the_photo_are_refused(num_frames: int) -> None:
    with pytest.raises(ValueError, match="first latent frame is the photo itself"):
        OpenSoraSurrogateConfig(num_frames=num_frames)


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "float16"), ("height", 8), ("fps", 0), ("paht", "x")]
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SURROGATES.build({"name": "open_sora", field: value})


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download hpcai-tech/OpenSora-STDiT-v3"):
        SURROGATES.build({"name": "open_sora", "path": "hpcai-tech/OpenSora-STDiT-v3"})


def test_pickled_weights_alone_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    weights = tmp_path / "model" / DENOISER / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match="lacks OpenSora-STDiT-v3/model.safetensors"):
        built(tmp_path / "model")


@pytest.mark.parametrize("part", [DENOISER, AUTOENCODER])
@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape", "torn"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, part: str, fault: str) -> None:
    save_tiny(tmp_path / "model")
    path = tmp_path / "model" / part / "model.safetensors"
    weights = load_file(path)
    name = (
        min(n for n, value in weights.items() if value.ndim > 1 and "encoder." in n)
        if (part == AUTOENCODER)
        else "t_block.1.weight"
    )
    if fault == "missing":
        del weights[name]
    elif fault == "unexpected":
        weights["surplus.weight"] = torch.zeros(1)
    elif fault == "shape":
        weights[name] = weights[name][:1].clone()
    save_file(weights, path)
    if fault == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{part}/model.safetensors"):
        built(tmp_path / "model")


def test_silent_configurations_mean_the_published_autoencoder(tmp_path: Path) -> None:
    (tmp_path / AUTOENCODER).mkdir()
    (tmp_path / AUTOENCODER / "config.json").write_text("{}")
    vae = _empty_autoencoder(tmp_path)
    # 83.65 million parameters has the 2D autoencoder of Stable Diffusion and SDXL.
    assert sum(p.numel() for p in vae.spatial_vae.parameters()) == 83_653_863
    assert sum(p.numel() for p in vae.temporal_vae.parameters()) == 309_687_144
    assert vae.micro_frame_size == 17 and vae.shift.shape == vae.scale.shape == (1, 4, 1, 1, 1)


def test_foreign_autoencoder_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    path = tmp_path / "model" / AUTOENCODER / "config.json"
    config = json.loads(path.read_text())
    config["vae_temporal"]["type"] = "VAE_Temporal_X"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="temporal autoencoder of Open-Sora 'VAE_Temporal_X'"):
        built(tmp_path / "model")
