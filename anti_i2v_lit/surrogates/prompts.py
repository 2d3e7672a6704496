"""Prompt embeddings: made once by a text encoder that is loaded for that and dropped again.

The encoder never lies beside a denoiser in the memory of one device: texts that are known
beforehand are embedded by `prepare`, on the device, before the denoiser is loaded; a text that
comes up later is embedded on the CPU.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

TextModel = tuple["PreTrainedTokenizerBase", "T5EncoderModel"]
_MEMORY = 256  # texts kept in memory; one of CogVideoX-5B takes 1.8 MB
_SAMPLE_BYTES = 65536


class PromptCache:
    """Embeddings on disk, one file per (model, text), shared by runs and by processes.

    Args:
        folder: where the files lie; made on the first write.
        model_key: identity of the text encoder and of its settings.
    """

    def __init__(self, folder: Path, model_key: str) -> None:
        self._folder, self._model_key = folder, model_key

    def path(self, text: str) -> Path:
        """Return the file of a text."""
        digest = hashlib.sha256(f"{self._model_key}\x00{text}".encode()).hexdigest()
        return self._folder / f"{digest}.safetensors"

    def get(self, text: str) -> Tensor | None:
        """Return the embedding [L, D] of a text, or None; warns about an unreadable file."""
        path = self.path(text)
        if not path.exists():
            return None
        try:
            return load_file(path)["embedding"]
        except (SafetensorError, KeyError, OSError) as error:
            warnings.warn(f"prompt cache: {path} is unreadable ({error}); made anew", stacklevel=2)
            return None

    def put(self, text: str, embedding: Tensor) -> None:
        """Write the embedding [L, D] of a text; readers never see half a file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        os.close(handle)
        save_file({"embedding": embedding.contiguous()}, name)
        os.replace(name, self.path(text))


def text_model_key(folder: Path, max_tokens: int, dtype: torch.dtype) -> str:
    """Identify the text encoder and tokenizer of a diffusers folder without reading gigabytes.

    Names, sizes and the first and last 64 KiB of every file go into the key, not times or places:
    a copied folder hits the same cache.

    Args:
        folder: model folder with `text_encoder/` and `tokenizer/`.
        max_tokens: tokens a prompt is padded or cut to.
        dtype: of the embeddings.
    """
    digest = hashlib.sha256(f"{max_tokens} {dtype}".encode())
    for part in ("tokenizer", "text_encoder"):
        for path in sorted((folder / part).iterdir()):
            size = path.stat().st_size
            digest.update(f"\x00{part}/{path.name} {size}\x00".encode())
            with path.open("rb") as stream:
                digest.update(stream.read(_SAMPLE_BYTES))
                stream.seek(max(size - _SAMPLE_BYTES, 0))
                digest.update(stream.read())
    return digest.hexdigest()


class PromptEmbedder:
    """Texts to T5 embeddings, as the CogVideoX pipeline makes them: padded, without a mask.

    Args:
        load: returns tokenizer and text encoder; called only when a text is new.
        max_tokens: tokens a prompt is padded or cut to.
        dtype: of the embeddings.
        cache: on disk; None keeps them in memory only.
    """

    def __init__(
        self,
        load: Callable[[], TextModel],
        max_tokens: int,
        dtype: torch.dtype,
        cache: PromptCache | None = None,
    ) -> None:
        self._load, self._max_tokens, self._dtype, self._cache = load, max_tokens, dtype, cache
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def prepare(self, prompts: Sequence[str], device: torch.device) -> None:
        """Make the embeddings of known texts on a device, before a denoiser fills it.

        The text encoder is loaded at most once, for the texts that neither memory nor disk holds,
        and is released before the return; the embeddings wait in the CPU's memory.
        """
        new = [text for text in dict.fromkeys(prompts) if self._recall(text) is None]
        if new:
            made = self._make(new, device)
            self._known.update({text: value.cpu() for text, value in made.items()})

    def embed(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return embeddings [B, max_tokens, D] on a device.

        The text encoder is loaded at most once per call, for the texts that neither memory nor
        disk holds, runs on the CPU, and is released before the return.
        """
        found = {text: self._recall(text) for text in dict.fromkeys(prompts)}
        new = [text for text, value in found.items() if value is None]
        made = self._make(new, torch.device("cpu")) if new else {}
        rows = {}
        for text, value in found.items():
            # Kept where last used: a run asks for the same few texts at every step.
            rows[text] = (made[text] if value is None else value).to(device)
            self._known[text] = rows[text]
            self._known.move_to_end(text)
        while len(self._known) > _MEMORY:
            self._known.popitem(last=False)
        return torch.stack([rows[text] for text in prompts])

    def _recall(self, text: str) -> Tensor | None:
        if text in self._known:
            return self._known[text]
        if self._cache is None:
            return None
        stored = self._cache.get(text)
        return None if stored is None else stored.to(self._dtype)

    @torch.no_grad()
    def _make(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        tokenizer, encoder = self._load()
        nn.Module.to(encoder, device)
        made = {}
        for text in texts:
            tokens = tokenizer(
                [text],
                padding="max_length",
                max_length=self._max_tokens,
                truncation=True,
                add_special_tokens=True,
                return_tensors="pt",
            ).input_ids
            self._warn_if_cut(text, len(tokenizer(text).input_ids))
            made[text] = encoder(tokens.to(device))[0][0].to(self._dtype)
            if self._cache is not None:
                self._cache.put(text, made[text].cpu())
        return made

    def _warn_if_cut(self, text: str, num_tokens: int) -> None:
        if num_tokens > self._max_tokens:
            warnings.warn(
                f"prompt of {num_tokens} tokens is cut to the model's {self._max_tokens}: "
                f"{text[:60]!r}...",
                stacklevel=2,
            )
