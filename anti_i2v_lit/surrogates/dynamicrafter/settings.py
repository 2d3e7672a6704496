"""What a checkpoint does not say of its model: the published settings, or a file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.surrogates.dynamicrafter.clip import ClipSettings, TowerSettings
from anti_i2v_lit.surrogates.parameterisation import Parameterisation

_KINDS = {
    "eps": Parameterisation.EPSILON,
    "v": Parameterisation.VELOCITY,
    "x0": Parameterisation.SAMPLE,
}
_UNET: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": (4, 2, 1),
    "num_res_blocks": 2,
    "channel_mult": (1, 2, 4, 4),
    "dropout": 0.1,
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
    "use_linear": True,
    "temporal_conv": True,
    "temporal_attention": True,
    "temporal_selfatt_only": True,
    "use_relative_position": False,
    "use_causal_attention": False,
    "temporal_length": 16,
    "addition_attention": True,
    "image_cross_attention": True,
    "default_fs": 24,
    "fs_condition": True,
}
_FIRST_STAGE: dict[str, Any] = {
    "embed_dim": 4,
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": (1, 2, 4, 4),
    "num_res_blocks": 2,
    "attn_resolutions": (),
    "dropout": 0.0,
}
_RESAMPLER: dict[str, Any] = {
    "dim": 1024,
    "depth": 4,
    "dim_head": 64,
    "heads": 12,
    "num_queries": 16,
    "embedding_dim": 1280,
    "output_dim": 1024,
    "ff_mult": 4,
    "video_length": 16,
}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A DynamiCrafter model without its weights.

    Attributes:
        unet: keywords of `UNet`.
        first_stage: keywords of `FirstStage`.
        resampler: keywords of `Resampler`.
        clip: sizes of the two embedders.
        penultimate_text: whether the text embedder leaves out its last block.
        kind: what the denoiser predicts.
        linear_start: first beta of the noise schedule.
        linear_end: last beta; their square roots lie on a line.
        timesteps: length of the schedule.
        zero_snr: whether the schedule is rescaled to end in pure noise.
        base_scale: factor of clean latents at late timesteps (dynamic rescale); 1 for none.
        turning_step: timestep up to which that factor falls from 1.
        scale_factor: of the first stage's latents.
        latent_size: (h, w) of the latents.
        frame_by_frame: whether the first stage takes the frames of a clip one at a time.
    """

    unet: Mapping[str, Any]
    first_stage: Mapping[str, Any]
    resampler: Mapping[str, Any]
    clip: ClipSettings = field(default_factory=ClipSettings)
    penultimate_text: bool = True
    kind: Parameterisation
    linear_start: float = 0.00085
    linear_end: float = 0.012
    timesteps: int = 1000
    zero_snr: bool
    base_scale: float = 1.0
    turning_step: int = 400
    scale_factor: float = 0.18215
    latent_size: tuple[int, int]
    frame_by_frame: bool = False


_512 = ModelSettings(
    unet=_UNET,
    first_stage=_FIRST_STAGE,
    resampler=_RESAMPLER,
    kind=Parameterisation.VELOCITY,
    zero_snr=True,
    base_scale=0.7,
    latent_size=(40, 64),
    frame_by_frame=True,
)
# The authors' inference_{256,512,1024}_v1.0.yaml.
PUBLISHED: Mapping[int, ModelSettings] = {
    256: replace(
        _512,
        unet={**_UNET, "image_cross_attention_scale_learnable": True, "default_fs": 3},
        kind=Parameterisation.EPSILON,
        zero_snr=False,
        base_scale=1.0,
        latent_size=(32, 32),
        frame_by_frame=False,
    ),
    512: _512,
    1024: replace(_512, unet={**_UNET, "default_fs": 10}, base_scale=0.3, latent_size=(72, 128)),
}


def settings_beside(folder: Path) -> ModelSettings | None:
    """Read `config.yaml` (or `config.json`) of a folder, in the authors' format; None if absent.

    One thing is ours: `clip` among the parameters of the two embedders, the fields of
    `ClipSettings`, because the authors' format can only name ViT-H-14.

    Raises:
        ValueError: not such a file.
    """
    for name in ("config.yaml", "config.json"):
        path = folder / name
        if path.is_file():
            try:
                return parse_settings(yaml.safe_load(path.read_text(encoding="utf-8")))
            except (KeyError, TypeError, yaml.YAMLError) as error:
                raise ValueError(f"{path}: not a DynamiCrafter configuration: {error!r}") from error
    return None


def parse_settings(document: Mapping[str, Any]) -> ModelSettings:
    """Understand a configuration in the authors' format.

    Raises:
        KeyError: an entry is missing.
        ValueError: a value that no model has.
    """
    entries = document["model"]["params"]
    first_stage = entries["first_stage_config"]["params"]
    text = entries["cond_stage_config"].get("params") or {}
    kind = str(entries.get("parameterization", "eps"))
    check_in(kind, _KINDS, "parameterization")
    rescaled = bool(entries.get("use_dynamic_rescale", False))
    height, width = entries["image_size"]
    return ModelSettings(
        unet=dict(entries["unet_config"]["params"]),
        first_stage={**first_stage["ddconfig"], "embed_dim": first_stage["embed_dim"]},
        resampler=dict(entries["image_proj_stage_config"]["params"]),
        clip=_clip_settings(text.get("clip")),
        penultimate_text=text.get("layer", "last") == "penultimate",
        kind=_KINDS[kind],
        linear_start=float(entries.get("linear_start", 1e-4)),
        linear_end=float(entries.get("linear_end", 2e-2)),
        timesteps=int(entries.get("timesteps", 1000)),
        zero_snr=bool(entries.get("rescale_betas_zero_snr", False)),
        base_scale=float(entries.get("base_scale", 0.7)) if rescaled else 1.0,
        turning_step=int(entries.get("turning_step", 400)),
        scale_factor=float(entries.get("scale_factor", 1.0)),
        latent_size=(int(height), int(width)),
        frame_by_frame=bool(entries.get("perframe_ae", False)),
    )


def document_of(settings: ModelSettings) -> dict[str, Any]:
    """Write settings in the authors' format; `parse_settings` reads them back."""
    kinds = {kind: name for name, kind in _KINDS.items()}
    first_stage = {k: _plain(v) for k, v in settings.first_stage.items() if k != "embed_dim"}
    clip = _clip_document(settings.clip)
    layer = "penultimate" if settings.penultimate_text else "last"
    embed_dim = settings.first_stage.get("embed_dim", settings.first_stage["z_channels"])
    entries = {
        "parameterization": kinds[settings.kind],
        "rescale_betas_zero_snr": settings.zero_snr,
        "linear_start": settings.linear_start,
        "linear_end": settings.linear_end,
        "timesteps": settings.timesteps,
        "use_dynamic_rescale": settings.base_scale != 1.0,
        "base_scale": settings.base_scale,
        "turning_step": settings.turning_step,
        "scale_factor": settings.scale_factor,
        "image_size": list(settings.latent_size),
        "perframe_ae": settings.frame_by_frame,
        "unet_config": {"params": {k: _plain(v) for k, v in settings.unet.items()}},
        "first_stage_config": {"params": {"embed_dim": embed_dim, "ddconfig": first_stage}},
        "cond_stage_config": {"params": {"layer": layer, "clip": clip}},
        "img_cond_stage_config": {"params": {"clip": clip}},
        "image_proj_stage_config": {"params": dict(settings.resampler)},
    }
    return {"model": {"params": entries}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _clip_settings(entries: Mapping[str, Any] | None) -> ClipSettings:
    if entries is None:
        return ClipSettings()
    towers = {name: TowerSettings(**entries[name]) for name in ("image", "text")}
    return ClipSettings(**{**entries, **towers})


def _clip_document(settings: ClipSettings) -> dict[str, Any]:
    document = dict(vars(settings))
    return {**document, "image": dict(vars(settings.image)), "text": dict(vars(settings.text))}
