"""Write the trained parts in the layout in which models of their kind are published."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from diffusers import CogVideoXImageToVideoPipeline
from torch import nn

from anti_i2v_lit.surrogates.dynamicrafter.loading import write_checkpoint
from anti_i2v_lit.surrogates.dynamicrafter.settings import ModelSettings, document_of
from anti_i2v_lit.surrogates.embedded.denoiser import Transformer, build_scheduler
from anti_i2v_lit.surrogates.embedded.text import build_text_encoder, build_tokenizer

LARGEST_BYTES = 24_000_000  # a shipped model must stay below this


def export_pipeline(vae: Any, transformer: Transformer, folder: pathlib.Path) -> int:
    """Save autoencoder, transformer, scheduler, tokenizer and text encoder as fp16.

    Args:
        vae: ``AutoencoderKLCogVideoX`` with whitened latents.
        transformer: Denoiser in diffusers' own layout.
        folder: Written in full, then moved into place; a ``MODEL_CARD.md`` there is kept.

    Returns:
        Size of the folder in bytes.

    Raises:
        ValueError: The folder would exceed :data:`LARGEST_BYTES`.
    """
    text_encoder: Any = build_text_encoder()
    pipeline: Any = CogVideoXImageToVideoPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=text_encoder.to(torch.float16),
        vae=vae.to(torch.float16),
        transformer=transformer.to(torch.float16),
        scheduler=build_scheduler(),
    )
    draft = _fresh_draft(folder)
    pipeline.save_pretrained(draft, safe_serialization=True)
    index = draft / "model_index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))
    parts["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    index.write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    _name_tokenizer_class(draft / "tokenizer")
    return _move_into_place(draft, folder)


def export_dynamicrafter(
    settings: ModelSettings, parts: Mapping[str, nn.Module], folder: pathlib.Path
) -> int:
    """Save networks as DynamiCrafter's checkpoints are: one file of fp16 tensors, one of settings.

    Args:
        settings: Of the model.
        parts: The checkpoint's prefixes and their networks.
        folder: Written in full, then moved into place; a ``MODEL_CARD.md`` there is kept.

    Returns:
        Size of the folder in bytes.

    Raises:
        ValueError: The folder would exceed :data:`LARGEST_BYTES`.
    """
    draft = _fresh_draft(folder)
    draft.mkdir(parents=True)
    state = {
        prefix + name: value.to(torch.float16)
        for prefix, network in parts.items()
        for name, value in network.state_dict().items()
    }
    write_checkpoint(draft / "model.safetensors", state)
    document = yaml.safe_dump(document_of(settings), sort_keys=False)
    (draft / "config.yaml").write_text(document, encoding="utf-8")
    build_tokenizer(settings.clip.context_length).save_pretrained(draft / "tokenizer")
    _name_tokenizer_class(draft / "tokenizer")
    return _move_into_place(draft, folder)


def folder_bytes(folder: pathlib.Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _fresh_draft(folder: pathlib.Path) -> pathlib.Path:
    draft = folder.with_name(folder.name + ".draft")
    if draft.exists():
        shutil.rmtree(draft)
    return draft


def _move_into_place(draft: pathlib.Path, folder: pathlib.Path) -> int:
    size = folder_bytes(draft)
    if size > LARGEST_BYTES:
        raise ValueError(
            f"{size} bytes arrived; expected at most {LARGEST_BYTES}; shrink the model."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for part in draft.iterdir():
        target = folder / part.name
        if target.is_dir():
            shutil.rmtree(target)
        part.replace(target)
    draft.rmdir()
    return size


def _name_tokenizer_class(folder: pathlib.Path) -> None:
    """Name the tokenizer class as every release of transformers knows it."""
    settings = folder / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
