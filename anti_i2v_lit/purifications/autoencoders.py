"""Autoencoders of image and video models, loaded by name or folder, as a round trip for photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors import safe_open
from torch import Tensor, nn

from anti_i2v_lit.checkpoints import (
    COGVIDEOX,
    EMBEDDED,
    PACKAGED,
    checkpoint_folder,
    only_variant,
    quiet_loading,
)
from anti_i2v_lit.checks import check_in, did_you_mean
from anti_i2v_lit.purifications.devices import best_device
from anti_i2v_lit.purifications.taesd import load_tiny, tiny_files

_PREFIX = "first_stage_model."
_TINY_UNIT_PX = 8
_LDM_LAYOUT = PACKAGED["dynamicrafter"]


class Reconstructor(Protocol):
    """An autoencoder as a purifier sees it."""

    unit_px: int
    """Sides of the photos must be multiples of this many pixels."""

    def reconstruct(self, photos: Tensor) -> Tensor:
        """Photos [B, 3, H, W] in [0, 1] through encoder and decoder, same shape, in [0, 1]."""
        ...


class _Network:
    """A `Reconstructor` of a frozen diffusers autoencoder.

    Args:
        network: the autoencoder.
        unit_px: pixels per latent row.
        round_trip: images in [-1, 1] through the network.
    """

    def __init__(
        self, network: nn.Module, unit_px: int, round_trip: Callable[[Any, Tensor], Tensor]
    ) -> None:
        self.network = network.float().eval().requires_grad_(False).to(best_device())
        self.unit_px, self._round_trip = unit_px, round_trip

    def reconstruct(self, photos: Tensor) -> Tensor:
        """See `Reconstructor`."""
        device = next(self.network.parameters()).device
        found = self._round_trip(self.network, (2.0 * photos - 1.0).to(device))
        return (0.5 * (found + 1.0)).clamp(0.0, 1.0).to(photos)


def load_reconstructor(model: str) -> Reconstructor:
    """Load an autoencoder.

    Args:
        model: "mmdit_128" or "unet_128" for that of a packaged model, or a local folder: a
            diffusers autoencoder, a pipeline with one below `vae/`, or the encoder's and the
            decoder's file of one tiny autoencoder (`taesd_encoder.pth` and so on).

    Raises:
        ValueError: unknown name, no such folder, or an autoencoder of another kind.
    """
    if model in _NAMED:
        return _NAMED[model]()
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"model: expected {' or '.join(sorted(_NAMED))} or a local folder, got {model!r}."
            f"{did_you_mean(model, _NAMED)}"
        )
    return _from_folder(folder / "vae" if (folder / "vae").is_dir() else folder)


def _from_folder(folder: Path) -> Reconstructor:
    config = folder / "config.json"
    if not config.is_file():
        files = tiny_files(folder)
        if files is not None:
            return _Network(load_tiny(*files), _TINY_UNIT_PX, _pixels)
        raise ValueError(
            f"{folder}: expected a diffusers autoencoder, but config.json is missing, and there "
            "is no single pair of *_encoder.pth and *_decoder.pth either"
        )
    settings = json.loads(config.read_text(encoding="utf-8"))
    check_in(str(settings.get("_class_name")), _CLASSES, f"kind of autoencoder in {folder}:")
    cls, round_trip = _CLASSES[settings["_class_name"]]
    with quiet_loading():
        network: Any = cls.from_pretrained(
            folder,
            variant=only_variant(folder),
            torch_dtype=torch.float32,
            local_files_only=True,
        )
    levels: Any = network.config.get("encoder_block_out_channels") or network.config.get(
        "block_out_channels"
    )
    return _Network(network, 2 ** (len(levels) - 1), round_trip)


def _mmdit() -> Reconstructor:
    return _from_folder(checkpoint_folder(EMBEDDED, COGVIDEOX) / "vae")


def _unet() -> Reconstructor:
    """The first stage of the packaged checkpoint, in the reference layout, as diffusers has it."""
    folder = checkpoint_folder(EMBEDDED, COGVIDEOX).parent / _LDM_LAYOUT
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    stage = yaml.safe_load(text)["model"]["params"]["first_stage_config"]["params"]
    shape = stage["ddconfig"]
    levels = len(shape["ch_mult"])
    network = AutoencoderKL(
        in_channels=shape["in_channels"],
        out_channels=shape["out_ch"],
        latent_channels=stage["embed_dim"],
        block_out_channels=tuple(shape["ch"] * multiple for multiple in shape["ch_mult"]),
        layers_per_block=shape["num_res_blocks"],
        norm_num_groups=shape["norm_groups"],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        names = [name for name in stored.keys() if name.startswith(_PREFIX)]  # noqa: SIM118
        state = {name: stored.get_tensor(name).float() for name in names}
    network.load_state_dict(convert_ldm_vae_checkpoint(state, dict(network.config)))
    return _Network(network, 2 ** (levels - 1), _kl)


def _kl(network: Any, images: Tensor) -> Tensor:
    return network.decode(network.encode(images).latent_dist.mode()).sample


def _tiny(network: Any, images: Tensor) -> Tensor:
    return network.decode(network.encode(images).latents).sample


def _pixels(network: Any, images: Tensor) -> Tensor:
    """Networks whose pixels lie in [0, 1]."""
    return 2.0 * network(0.5 * (images + 1.0)) - 1.0


def _clip_of_one(network: Any, images: Tensor) -> Tensor:
    """Video autoencoders get the photo as a clip of one frame."""
    latents = network.encode(images[:, :, None]).latent_dist.mode()
    return network.decode(latents).sample[:, :, 0]


_NAMED: dict[str, Callable[[], Reconstructor]] = {
    PACKAGED["cogvideox"]: _mmdit,
    PACKAGED["dynamicrafter"]: _unet,
}
_CLASSES: dict[str, tuple[Any, Callable[[Any, Tensor], Tensor]]] = {
    "AutoencoderKL": (AutoencoderKL, _kl),
    "AutoencoderKLCogVideoX": (AutoencoderKLCogVideoX, _clip_of_one),
    "AutoencoderTiny": (AutoencoderTiny, _tiny),
}
