"""Write the trained parts as a pipeline folder that diffusers loads without a network."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import torch
from diffusers import CogVideoXImageToVideoPipeline

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
    draft = folder.with_name(folder.name + ".draft")
    if draft.exists():
        shutil.rmtree(draft)
    pipeline.save_pretrained(draft, safe_serialization=True)
    _name_tokenizer_class(draft)
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


def folder_bytes(folder: pathlib.Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _name_tokenizer_class(folder: pathlib.Path) -> None:
    """Name the tokenizer class as every release of transformers knows it."""
    index = folder / "model_index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))
    parts["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    index.write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    settings = folder / "tokenizer" / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
