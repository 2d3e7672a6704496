"""From the published checkpoints of Open-Sora 1.2 to networks in memory.

A model folder holds the published repositories side by side, each under its own name:

    OpenSora-STDiT-v3/     config.json, model.safetensors     (hpcai-tech/OpenSora-STDiT-v3)
    OpenSora-VAE-v1.2/     config.json, model.safetensors     (hpcai-tech/OpenSora-VAE-v1.2)
    text_encoder/, tokenizer/, vae/config.json    (PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers)

The last is where the published code takes the 2D autoencoder's configuration from; its T5 is the
`t5-v1_1-xxl` that Open-Sora reads captions with, as safetensors. Tensors go straight from the
mapped file to their final precision, one at a time, and no file is ever unpickled.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import SafetensorError, safe_open
from torch import nn

from anti_i2v_lit.checkpoints import OPEN_SORA, quiet_loading
from anti_i2v_lit.checks import check_in
from anti_i2v_lit.surrogates.open_sora.captions import MaskedTextEncoder
from anti_i2v_lit.surrogates.open_sora.stdit3 import STDiT3
from anti_i2v_lit.surrogates.open_sora.temporal_vae import TemporalVAE
from anti_i2v_lit.surrogates.open_sora.video_vae import SpatialVAE, VideoVAE
from anti_i2v_lit.surrogates.prompts import (
    PromptEmbedder,
    Prompting,
    TextModel,
    text_model_key,
)

DENOISER, AUTOENCODER = "OpenSora-STDiT-v3", "OpenSora-VAE-v1.2"
_HOW = (
    "nothing is downloaded at run time: fetch the model once with "
    f"'hf download hpcai-tech/{DENOISER} --local-dir FOLDER/{DENOISER}', "
    f"'hf download hpcai-tech/{AUTOENCODER} --local-dir FOLDER/{AUTOENCODER}' and "
    "'hf download PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers --local-dir FOLDER', "
    "and set path=FOLDER"
)
_DECODING = (
    "temporal_vae.decoder.",
    "temporal_vae.post_quant_conv.",
    "spatial_vae.module.decoder.",
    "spatial_vae.module.post_quant_conv.",
)
# What the published code (`OpenSoraVAE_V1_2`) sets where a configuration is silent.
_PUBLISHED: dict[str, Any] = {
    "vae_2d": {"type": "VideoAutoencoderKL", "micro_batch_size": 4},
    "vae_temporal": {"type": "VAE_Temporal_SD"},
    "shift": [-0.10, 0.34, 0.27, 0.98],
    "scale": [3.85, 2.32, 2.33, 3.06],
    "micro_frame_size": 17,
}
# The 2D autoencoder of SDXL (Podell et al. 2023, arXiv 2307.01952), where the folder lacks its
# configuration; a checkpoint of another shape does not load.
_SDXL: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


@dataclass(frozen=True, kw_only=True)
class OpenSoraParts:
    """What a surrogate or a generator needs, in memory.

    Attributes:
        denoiser: STDiT3.
        vae: the autoencoder; without its decoder for a surrogate.
        prompts: texts to T5 states with their mask as last channel.
    """

    denoiser: STDiT3
    vae: VideoVAE
    prompts: PromptEmbedder


def model_folder(path: str) -> Path:
    """Return the folder that a `path` setting names, after a look at what is inside.

    Raises:
        ValueError: not a folder, or a file is missing; says how to obtain the model.
    """
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise ValueError(f"path: expected a local model folder, got {path!r}; {_HOW}")
    missing = [pattern for pattern in OPEN_SORA.needed if not any(folder.glob(pattern))]
    if missing:
        raise ValueError(
            f"path: {folder} is not a whole model folder, it lacks {', '.join(missing)}; {_HOW}"
        )
    return folder


def load_denoiser(folder: Path, dtype: torch.dtype) -> STDiT3:
    """Load STDiT3 in `dtype`.

    Args:
        folder: from `model_folder`.
        dtype: of the weights.

    Raises:
        ValueError: the checkpoint does not fit its own configuration.
    """
    config = _read(folder / DENOISER / "config.json")
    # The published file also holds what the transformers library writes into every one.
    known = inspect.signature(STDiT3).parameters
    with torch.device("meta"):
        model = STDiT3(**{name: value for name, value in config.items() if name in known})
    _fill(model, folder / DENOISER / "model.safetensors", dtype)
    return model.eval()


def load_autoencoder(folder: Path, dtype: torch.dtype) -> VideoVAE:
    """Load the whole autoencoder in `dtype`; arguments and errors as `load_denoiser`."""
    vae = _empty_autoencoder(folder)
    _fill(vae, folder / AUTOENCODER / "model.safetensors", dtype)
    return vae.eval()


def load_photo_encoder(folder: Path, dtype: torch.dtype) -> VideoVAE:
    """Load the encoding half only; the rest of the file is not read, but its names are checked."""
    vae = _empty_autoencoder(folder)
    path = folder / AUTOENCODER / "model.safetensors"
    _check_names(vae, path)
    vae.drop_decoder()
    _fill(vae, path, dtype, skip=_DECODING)
    return vae.eval()


def load_prompts(folder: Path, dtype: torch.dtype, prompting: Prompting) -> PromptEmbedder:
    """Make the embedder of captions; the text encoder stays on disk until a text is new.

    Args:
        folder: from `model_folder`.
        dtype: of the embeddings.
        prompting: how texts are embedded.
    """
    max_words = int(_read(folder / DENOISER / "config.json").get("model_max_length", 300))
    return prompting.embedder(
        partial(_load_text_model, folder, dtype),
        max_words,
        dtype,
        lambda: text_model_key(folder, max_words, dtype) + " masked, with its mask",
    )


def _empty_autoencoder(folder: Path) -> VideoVAE:
    """The autoencoder of a folder's configuration, without memory for its weights."""
    config = {**_PUBLISHED, **_read(folder / AUTOENCODER / "config.json")}
    flat, temporal = dict(config["vae_2d"]), dict(config["vae_temporal"])
    check_in(str(flat.get("type")), ("VideoAutoencoderKL",), "2D autoencoder of Open-Sora")
    kinds = ("VAE_Temporal", "VAE_Temporal_SD")
    check_in(str(temporal.pop("type", None)), kinds, "temporal autoencoder of Open-Sora")
    temporal.pop("from_pretrained", None)
    plane = folder / "vae" / "config.json"
    with torch.device("meta"):
        module = AutoencoderKL.from_config(_read(plane) if plane.is_file() else _SDXL)
        return VideoVAE(
            SpatialVAE(module, flat.get("micro_batch_size")),
            TemporalVAE(**temporal),
            config["shift"],
            config["scale"],
            config["micro_frame_size"],
        )


def _load_text_model(folder: Path, dtype: torch.dtype) -> TextModel:
    from transformers import AutoTokenizer, T5EncoderModel

    with quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = T5EncoderModel.from_pretrained(
            folder / "text_encoder", dtype=dtype, local_files_only=True, use_safetensors=True
        )
    masked: Any = MaskedTextEncoder(encoder.eval())
    return tokenizer, masked


def _read(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _names_in(path: Path) -> set[str]:
    try:
        with safe_open(path, framework="pt") as stream:
            return set(stream.keys())
    except SafetensorError as error:
        raise ValueError(f"path: {path} is not a whole safetensors file ({error})") from error


def _check_names(module: nn.Module, path: Path) -> None:
    """Refuse a checkpoint that lacks a tensor of the module or has one too many."""
    expected, found = set(module.state_dict()), _names_in(path)
    for names, what in ((expected - found, "lacks"), (found - expected, "has unexpected")):
        if names:
            raise ValueError(
                f"path: {path} does not fit its config.json: it {what} {len(names)} tensors, "
                f"the first being {min(names)}"
            )


def _fill(module: nn.Module, path: Path, dtype: torch.dtype, skip: tuple[str, ...] = ()) -> None:
    """Give a module on the meta device its weights."""
    wanted = sorted(name for name in _names_in(path) if not name.startswith(skip or ("\x00",)))
    with safe_open(path, framework="pt") as stream:
        state = {name: stream.get_tensor(name).to(dtype) for name in wanted}
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[:2])
        raise ValueError(f"path: {path} does not fit its config.json: {first}") from error
