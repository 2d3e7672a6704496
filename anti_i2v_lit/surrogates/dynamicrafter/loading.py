"""From a published checkpoint to the networks of a surrogate or a generator.

Weights come from `model.ckpt` (read as tensors only, never as arbitrary pickle) or
`model.safetensors`, mapped from the file: ranks of one machine share its pages, and what a part
does not need is not read. Names and shapes must be those of the model, all of them.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import DYNAMICRAFTER, checkpoint_folder
from anti_i2v_lit.surrogates.dynamicrafter.clip import ImageEmbedder, TextEmbedder
from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage
from anti_i2v_lit.surrogates.dynamicrafter.model import DynamiCrafter, Schedule
from anti_i2v_lit.surrogates.dynamicrafter.resampler import Resampler
from anti_i2v_lit.surrogates.dynamicrafter.settings import (
    PUBLISHED,
    ModelSettings,
    settings_beside,
)
from anti_i2v_lit.surrogates.dynamicrafter.tokens import tokenizer_for
from anti_i2v_lit.surrogates.dynamicrafter.unet import UNet
from anti_i2v_lit.surrogates.prompts import PromptEmbedder, Prompting

State = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

_FILES = ("model.safetensors", "model.ckpt")
# Buffers that the authors' class stores beside its networks; all follow from the settings.
_BUFFERS = frozenset(
    (
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "scale_arr",
    )
)
_DEEPSPEED_PREFIX = "_forward_module."
_SAMPLE_BYTES = 65536
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class DynamiCrafterParts:
    """The networks of one model, in memory.

    Attributes:
        settings: of the model.
        unet: the denoiser.
        first_stage: the autoencoder of frames.
        embedder: photo to CLIP tokens.
        resampler: CLIP tokens to context tokens.
        prompts: texts to context tokens.
    """

    settings: ModelSettings
    unet: UNet
    first_stage: FirstStage
    embedder: ImageEmbedder
    resampler: Resampler
    prompts: PromptEmbedder


def load_parts(path: str, size: int, dtype: torch.dtype) -> DynamiCrafterParts:
    """Load a model with its decoder, for making clips.

    Args:
        path: "embedded" or a local folder.
        size: 256, 512 or 1024 for the published settings of that size; 0 to find out.
        dtype: of all weights.

    Raises:
        ValueError: no such folder, not such a checkpoint, or settings that remain unknown.
    """
    return _load(path, size, dtype, Prompting(), _drop_text)


def load_encoding_parts(
    path: str, size: int, dtype: torch.dtype, prompting: Prompting
) -> DynamiCrafterParts:
    """Load a model without its decoder, which is not even read.

    Args:
        path: as for `load_parts`.
        size: as for `load_parts`.
        dtype: of all weights.
        prompting: how texts are embedded; those it names are, before the denoiser is loaded.

    Raises:
        ValueError: as `load_parts`.
    """
    return _load(path, size, dtype, prompting, _drop_text_and_decoder)


def parts_of_state(
    model: DynamiCrafter, state: State, tokenizer: Any, dtype: torch.dtype = torch.float32
) -> DynamiCrafterParts:
    """Make the parts, decoder included, from a checkpoint's tensors in memory.

    Args:
        model: its networks become the parts; best on the meta device, for it loses its weights.
        state: the checkpoint's names and tensors.
        tokenizer: of prompts, a transformers tokenizer.
        dtype: of all weights.

    Raises:
        ValueError: names or shapes are not the model's.
    """
    checked = _checked(state, model, "state")
    load = partial(_text_model, model.settings, lambda: checked, lambda: tokenizer, dtype)
    prompts = PromptEmbedder(load, model.settings.clip.context_length, dtype)
    model.embedder.drop_text()
    return _parts(model, checked, dtype, prompts)


def write_checkpoint(file: Path, state: State) -> None:
    """Write tensors in the published layout; the suffix, .ckpt or .safetensors, says how."""
    if file.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, file)
    else:
        torch.save({"state_dict": dict(state)}, file)


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors under today's names, mapped from the file where it allows it.

    Understands the authors' three forms: `state_dict` inside, the older name of the frame-rate
    embedding (256), and weights saved by DeepSpeed.

    Raises:
        ValueError: the file holds something else than tensors.
    """
    if file.suffix == ".safetensors":
        stored: Any = load_file(file)
    else:
        stored = _unpickled(file)
    if "module" in stored:
        inside = stored["module"].items()
        stored = {name.removeprefix(_DEEPSPEED_PREFIX): value for name, value in inside}
    stored = stored.get("state_dict", stored)
    return {name.replace("framestride_embed", "fps_embedding"): v for name, v in stored.items()}


def _unpickled(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors, and code in it is not run; save its state_dict "
            f"alone, or as safetensors ({error})"
        ) from error
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise ValueError(f"{file} is not a whole checkpoint: {error}") from error
        # Files of torch before 1.6 cannot be mapped.
        return torch.load(file, map_location="cpu", weights_only=True)


def _load(
    path: str,
    size: int,
    dtype: torch.dtype,
    prompting: Prompting,
    reduce: Callable[[DynamiCrafter], None],
) -> DynamiCrafterParts:
    folder = checkpoint_folder(path, DYNAMICRAFTER)
    file = _checkpoint_file(folder)
    state = read_checkpoint(file)
    settings = _settings(folder, size, state)
    model = DynamiCrafter.on_meta(settings)
    checked = _checked(state, model, str(file))
    load = partial(
        _text_model,
        settings,
        partial(read_checkpoint, file),
        partial(tokenizer_for, folder),
        dtype,
    )
    embedder = prompting.embedder(
        load,
        settings.clip.context_length,
        dtype,
        partial(_identity, folder, file, dtype),
    )
    embedder.prepare(prompting.texts)
    reduce(model)
    return _parts(model, checked, dtype, embedder)


def _checkpoint_file(folder: Path) -> Path:
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    if not found:
        raise ValueError(f"path: expected {' or '.join(_FILES)} in {folder}")
    return found[0]


def _settings(folder: Path, size: int, state: State) -> ModelSettings:
    if size:
        return PUBLISHED[size]
    beside = settings_beside(folder)
    if beside is not None:
        return beside
    detected = _detected_size(state)
    if detected is None:
        raise ValueError(
            f"path: {folder} does not say which DynamiCrafter it holds; set size to "
            f"{', '.join(map(str, PUBLISHED))}, or put the authors' configuration beside the "
            "checkpoint as config.yaml"
        )
    return PUBLISHED[detected]


def _detected_size(state: State) -> int | None:
    """Tell the published models apart by what only one of them has."""
    if any(name.endswith("attn2.alpha") for name in state):
        return 256
    if "scale_arr" not in state:
        return None
    last = float(state["scale_arr"][-1])
    near = [size for size, known in PUBLISHED.items() if abs(known.base_scale - last) < 1e-4]
    return near[0] if near else None


def _checked(state: State, model: DynamiCrafter, source: str) -> dict[str, Tensor]:
    """The networks' tensors; refuses any other name or shape, and a foreign schedule."""
    expected = model.state_dict()
    found = {name: value for name, value in state.items() if name not in _BUFFERS}
    faults = {
        "lacks": [name for name in expected if name not in found],
        "has besides": [name for name in found if name not in expected],
        "has in another shape": [
            f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
            for name, value in expected.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    said = [
        f"{what} {len(names)} tensors: {', '.join(names[:_SHOWN])}"
        for what, names in faults.items()
        if names
    ]
    if said:
        raise ValueError(f"{source} is not this DynamiCrafter model; it " + "; it ".join(said))
    schedule = Schedule(model.settings)
    for name, own in (("alphas_cumprod", schedule.alphas_cumprod), ("scale_arr", schedule.scales)):
        if name in state and not torch.allclose(state[name].float()[: len(own)], own, atol=1e-5):
            raise ValueError(
                f"{source}: its {name} is not that of these settings; it is another "
                "DynamiCrafter: check size, or config.yaml beside it"
            )
    return found


def _parts(
    model: DynamiCrafter, state: State, dtype: torch.dtype, prompts: PromptEmbedder
) -> DynamiCrafterParts:
    return DynamiCrafterParts(
        settings=model.settings,
        unet=_filled(model.model.diffusion_model, "model.diffusion_model.", state, dtype),
        first_stage=_filled(model.first_stage_model, "first_stage_model.", state, dtype),
        embedder=_filled(model.embedder, "embedder.", state, dtype),
        resampler=_filled(model.image_proj_model, "image_proj_model.", state, dtype),
        prompts=prompts,
    )


def _filled(network: Network, prefix: str, state: State, dtype: torch.dtype) -> Network:
    """Give a network on the meta device its weights, one tensor at a time."""
    own = {name: state[prefix + name].to(dtype) for name in network.state_dict()}
    network.load_state_dict(own, strict=True, assign=True)
    return network


def _text_model(
    settings: ModelSettings,
    read: Callable[[], State],
    tokenizer: Callable[[], Any],
    dtype: torch.dtype,
) -> Any:
    with torch.device("meta"):
        encoder = TextEmbedder(settings.clip, settings.penultimate_text)
    return tokenizer(), _filled(encoder, "cond_stage_model.", read(), dtype).eval()


def _drop_text(model: DynamiCrafter) -> None:
    model.embedder.drop_text()


def _drop_text_and_decoder(model: DynamiCrafter) -> None:
    model.embedder.drop_text()
    model.first_stage_model.drop_decoder()


def _identity(folder: Path, file: Path, dtype: torch.dtype) -> str:
    """Name the text encoder by its file's size and ends, and the tokenizer by its files.

    The last bytes of a checkpoint hold the checksums of all its tensors.
    """
    digest = hashlib.sha256(f"{file.stat().st_size} {dtype}".encode())
    tokenizer = sorted(p for p in (folder / "tokenizer").glob("*") if p.is_file())
    for path in (file, *tokenizer):
        with path.open("rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES))
            stream.seek(max(path.stat().st_size - _SAMPLE_BYTES, 0))
            digest.update(stream.read())
    return digest.hexdigest()
