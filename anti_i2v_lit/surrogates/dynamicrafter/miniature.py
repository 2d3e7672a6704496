"""DynamiCrafter at toy size, in the published checkpoint's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from torch import Tensor

from anti_i2v_lit.surrogates.dynamicrafter.clip import ClipSettings, TowerSettings
from anti_i2v_lit.surrogates.dynamicrafter.loading import (
    DynamiCrafterParts,
    parts_of_state,
    write_checkpoint,
)
from anti_i2v_lit.surrogates.dynamicrafter.model import DynamiCrafter
from anti_i2v_lit.surrogates.dynamicrafter.settings import ModelSettings, document_of
from anti_i2v_lit.surrogates.parameterisation import Parameterisation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_WIDTH = 16  # of the context tokens
_CLIP_WIDTH = 32
_UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": (2, 1),
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "num_head_channels": 16,
    "context_dim": _WIDTH,
    "use_linear": True,
    "temporal_conv": True,
    "use_relative_position": False,
    "addition_attention": True,
    "image_cross_attention": True,
    "default_fs": 24,
    "fs_condition": True,
}
_FIRST_STAGE = {
    "embed_dim": 4,
    "double_z": True,
    "z_channels": 4,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": (1, 1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (),
}
_RESAMPLER = {
    "dim": 32,
    "depth": 1,
    "dim_head": 16,
    "heads": 2,
    "num_queries": 16,
    "embedding_dim": _CLIP_WIDTH,
    "output_dim": _WIDTH,
}


def tiny_settings(
    kind: Parameterisation = Parameterisation.VELOCITY, num_frames: int = 3
) -> ModelSettings:
    """Settings of a miniature with the switches of the 512 model: 32 px, two resolutions.

    Args:
        kind: what the denoiser predicts.
        num_frames: length of its clips in video frames.
    """
    velocity = kind is Parameterisation.VELOCITY
    clip = ClipSettings(
        embed_dim=8,
        image=TowerSettings(width=_CLIP_WIDTH, layers=2, heads=2),
        text=TowerSettings(width=_WIDTH, layers=2, heads=2),
        image_size=24,
        patch_size=8,
        vocab_size=30,
    )
    return ModelSettings(
        unet={**_UNET, "temporal_length": num_frames},
        first_stage=_FIRST_STAGE,
        resampler={**_RESAMPLER, "video_length": num_frames},
        clip=clip,
        kind=kind,
        zero_snr=velocity,
        base_scale=0.7 if velocity else 1.0,
        latent_size=(8, 8),
        frame_by_frame=True,
    )


def tiny_parts(
    kind: Parameterisation = Parameterisation.VELOCITY, num_frames: int = 3, seed: int = 0
) -> DynamiCrafterParts:
    """The networks of a miniature with random weights, in memory.

    Args:
        kind: what the denoiser predicts.
        num_frames: length of its clips in video frames.
        seed: of the random weights; the global random state is left as it was.
    """
    # At this size building in memory is faster than on the meta device.
    with torch.random.fork_rng(devices=[]):
        model = DynamiCrafter(tiny_settings(kind, num_frames))
    return parts_of_state(model, random_state(model, seed), tiny_tokenizer())


def random_state(model: DynamiCrafter, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under a checkpoint's names, none of them zero.

    Args:
        model: of these names and shapes, on any device.
        seed: of the random weights; the global random state is left as it was.
    """
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)

    def tensor(name: str, shape: torch.Size) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            return 0.6 * noise * shape[1:].numel() ** -0.5
        # Scales of normalisations are near one, whatever else has one axis is near zero.
        return 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)

    return {name: tensor(name, shape) for name, shape in shapes.items()}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer over single letters between CLIP's two marks, made in code."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = ["!", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "?"]
    core = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="!", bos_token="<s>", eos_token="</s>", unk_token="?"
    )


def write_miniature(
    folder: Path, settings: ModelSettings, state: dict[str, Tensor], name: str = "model.ckpt"
) -> None:
    """Write a model as published, with configuration and tokenizer beside the checkpoint.

    Args:
        folder: made where it is not there.
        settings: of the model.
        state: its tensors.
        name: of the checkpoint file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / name, state)
    document = yaml.safe_dump(document_of(settings), sort_keys=False)
    (folder / "config.yaml").write_text(document, encoding="utf-8")
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
