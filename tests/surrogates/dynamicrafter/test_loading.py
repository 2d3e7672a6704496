"""Published checkpoints in all their forms load by one path; anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.dynamicrafter import DynamiCrafterSurrogate
from anti_i2v_lit.surrogates.dynamicrafter.loading import (
    load_encoding_parts,
    load_parts,
    read_checkpoint,
    write_checkpoint,
)
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_settings, write_miniature
from anti_i2v_lit.surrogates.dynamicrafter.model import DynamiCrafter, Schedule
from anti_i2v_lit.surrogates.dynamicrafter.settings import (
    PUBLISHED,
    document_of,
    parse_settings,
)
from anti_i2v_lit.surrogates.parameterisation import Parameterisation
from anti_i2v_lit.surrogates.prompts import Prompting

State = dict[str, torch.Tensor]


@pytest.fixture
def state(tiny_folder: Path) -> State:
    return read_checkpoint(tiny_folder / "model.ckpt")


def build(folder: Path, **fields: object) -> DynamiCrafterSurrogate:
    surrogate = SURROGATES.build({"name": "dynamicrafter", "path": str(folder), **fields})
    assert isinstance(surrogate, DynamiCrafterSurrogate)
    return surrogate


def weights_of(surrogate: DynamiCrafterSurrogate) -> list[torch.Tensor]:
    return [p for module in surrogate.modules for p in module.parameters()]


def test_folder_loads_as_the_same_model_as_in_memory(tiny_folder: Path) -> None:
    loaded, made = weights_of(build(tiny_folder)), weights_of(DynamiCrafterSurrogate.tiny())
    assert all(torch.equal(a, b) for a, b in zip(loaded, made, strict=True))


def test_every_published_form_holds_the_same_tensors(state: State, tmp_path: Path) -> None:
    older = {name.replace("fps_embedding", "framestride_embed"): v for name, v in state.items()}
    assert older.keys() != state.keys()
    forms = {
        "a/model.ckpt": {"state_dict": older, "epoch": 3},
        "b/model.ckpt": {"module": {f"_forward_module.{k}": v for k, v in state.items()}},
        "c/model.ckpt": state,
    }
    for name, content in forms.items():
        (tmp_path / name).parent.mkdir()
        torch.save(content, tmp_path / name)
    write_checkpoint(tmp_path / "model.safetensors", state)
    for file in (*map(tmp_path.joinpath, forms), tmp_path / "model.safetensors"):
        found = read_checkpoint(file)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items())


def test_schedule_buffers_are_accepted_and_a_foreign_schedule_is_not(
    state: State, tmp_path: Path
) -> None:
    settings = tiny_settings()
    schedule = Schedule(settings)
    stored = {"betas": torch.zeros(1000), "alphas_cumprod": schedule.alphas_cumprod}
    write_miniature(tmp_path, settings, {**state, **stored})
    build(tmp_path)
    other = Schedule(tiny_settings(Parameterisation.EPSILON)).alphas_cumprod
    write_miniature(tmp_path, settings, {**state, "alphas_cumprod": other})
    with pytest.raises(ValueError, match="alphas_cumprod is not that of these settings"):
        build(tmp_path)


def test_missing_foreign_and_misshapen_tensors_are_named(state: State, tmp_path: Path) -> None:
    name = "image_proj_model.latents"
    wrong = {**state, "stray": torch.zeros(1), name: torch.zeros(1, 2, 3)}
    del wrong["embedder.model.ln_final.bias"]
    write_miniature(tmp_path, tiny_settings(), wrong)
    with pytest.raises(ValueError) as caught:
        build(tmp_path)
    said = str(caught.value)
    assert "lacks 1 tensors: embedder.model.ln_final.bias" in said
    assert "has besides 1 tensors: stray" in said
    assert f"{name} (1, 2, 3) for (1, 48, 32)" in said


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"state_dict": {}, "callbacks": Trap()}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="more than tensors"):
        build(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_cut_checkpoint_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    whole = (tiny_folder / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        build(tmp_path)


@pytest.mark.parametrize(("size", "view"), [(256, (256, 256)), (1024, (576, 1024))])
def test_full_published_checkpoints_load_and_are_told_apart_by_what_they_hold(
    size: int, view: tuple[int, int], tmp_path: Path
) -> None:
    """All 2507 tensors in their full shapes, each a single stored zero seen many times."""
    shapes = DynamiCrafter.on_meta(PUBLISHED[size]).state_dict()
    full = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
    if size != 256:
        full["scale_arr"] = Schedule(PUBLISHED[size]).scales
    torch.save({"state_dict": full}, tmp_path / "model.ckpt")
    surrogate = build(tmp_path)
    assert surrogate.view_size == view and surrogate.num_frames == 16


def test_unknown_sizes_are_refused(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="does not say which DynamiCrafter"):
        build(tmp_path)
    with pytest.raises(ValueError, match="size must be 0, 256, 512, 1024, got 320"):
        build(tmp_path, size=320)


def test_surrogate_holds_no_decoder_and_no_text_and_generator_parts_do(tiny_folder: Path) -> None:
    lean = load_encoding_parts(str(tiny_folder), 0, torch.bfloat16, Prompting())
    names = [*lean.first_stage.state_dict(), *lean.embedder.state_dict()]
    assert not [n for n in names if "decoder" in n or "token_embedding" in n]
    assert {p.dtype for p in lean.unet.parameters()} == {torch.bfloat16}
    full = load_parts(str(tiny_folder), 0, torch.float32)
    assert full.first_stage.decode(torch.zeros(1, 4, 2, 2)).shape == (1, 3, 8, 8)


def test_weights_stay_mapped_from_the_file(tiny_folder: Path) -> None:
    """A float32 tensor of a float32 checkpoint is the file's own memory, not a copy of it."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("no memory map to look at")
    parts = load_encoding_parts(str(tiny_folder), 0, torch.float32, Prompting())
    address = next(parts.unet.parameters()).data_ptr()
    line = next(
        line
        for line in maps.read_text().splitlines()
        if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    )
    assert line.endswith("model.ckpt")


def test_prompts_are_cached_for_a_copy_of_the_model_but_not_for_another(
    tiny_folder: Path, state: State, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    build(tiny_folder, prompt_cache=str(cache), prompts=["smile", "talk"])
    assert len(list(cache.iterdir())) == 2
    build(tiny_folder, prompt_cache=str(cache), prompts=["smile"])
    assert len(list(cache.iterdir())) == 2
    name = "cond_stage_model.model.ln_final.bias"
    write_miniature(tmp_path / "other", tiny_settings(), {**state, name: state[name] + 1})
    build(tmp_path / "other", prompt_cache=str(cache), prompts=["smile"])
    assert len(list(cache.iterdir())) == 3


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download Doubiiu/DynamiCrafter_512"):
        build(Path("Doubiiu/DynamiCrafter_512"))


def test_configuration_survives_writing_and_reading(tmp_path: Path) -> None:
    for settings in (*PUBLISHED.values(), tiny_settings()):
        document = json.loads(json.dumps(document_of(settings)))
        again = parse_settings(document)
        assert document_of(again) == document
        assert (again.clip, again.kind, again.base_scale) == (
            settings.clip,
            settings.kind,
            settings.base_scale,
        )
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    (tmp_path / "config.yaml").write_text("model: {params: {channels: 4}}")
    with pytest.raises(ValueError, match="not a DynamiCrafter configuration"):
        build(tmp_path)
