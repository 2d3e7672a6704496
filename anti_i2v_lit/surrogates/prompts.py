"""Prompt embeddings: made once by a text encoder that is loaded for that and dropped again.

The encoder never lies beside a denoiser in the memory of one device: texts that are known
beforehand are embedded by `prepare`, on the GPU while nothing else lies there; a text that comes
up later is embedded on the CPU. Of many texts, those that a disk holds leave the memory again.
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
_MEMORY = 256  # texts kept in the CPU's memory; one of CogVideoX-5B takes 1.8 MB
_PLACED = 32  # texts kept where they are used
_SAMPLE_BYTES = 65536


def encoder_device() -> torch.device:
    """Where a text encoder may run: the GPU as long as nothing lies there, else the CPU.

    A second model of an ensemble finds the first one's denoiser there.
    """
    empty = torch.cuda.is_available() and torch.cuda.memory_allocated() == 0
    return torch.device("cuda" if empty else "cpu")


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

    def has(self, text: str) -> bool:
        """Whether the embedding of a text lies there, readable or not."""
        return self.path(text).exists()

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
        self._placed: OrderedDict[tuple[str, torch.device], Tensor] = OrderedDict()

    def prepare(self, prompts: Sequence[str], device: torch.device | None = None) -> None:
        """Make the embeddings of known texts, before they are needed one by one.

        The text encoder is loaded at most once, for the texts that neither memory nor disk holds,
        and is released before the return. The embeddings wait on the disk, or else in the CPU's
        memory, which holds the first 256 of them.

        Args:
            prompts: texts, in the order of their use.
            device: where the text encoder runs; None for `encoder_device`.
        """
        new = [text for text in dict.fromkeys(prompts) if not self._has(text)]
        if self._cache is None and len(new) > _MEMORY:
            warnings.warn(
                f"{len(new)} prompts and no prompt_cache: {_MEMORY} are embedded beforehand, the "
                "others one by one, with the text encoder loaded for each; set prompt_cache",
                stacklevel=2,
            )
            new = new[:_MEMORY]
        if new:
            self._make(new, encoder_device() if device is None else device)

    def embed(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return embeddings [B, max_tokens, D] on a device.

        The text encoder is loaded at most once per call, for the texts that neither memory nor
        disk holds, runs on the CPU, and is released before the return.
        """
        found = {
            text: self._recall(text)
            for text in dict.fromkeys(prompts)
            if (text, device) not in self._placed
        }
        new = [text for text, value in found.items() if value is None]
        if new:
            self._make(new, torch.device("cpu"))
            found |= {text: self._recall(text) for text in new}
        for text, value in found.items():
            assert value is not None, "made above"
            self._placed[text, device] = value.to(device)
        rows = torch.stack([self._placed[text, device] for text in prompts])
        while len(self._placed) > _PLACED:
            self._placed.popitem(last=False)
        return rows

    def _has(self, text: str) -> bool:
        return text in self._known or (self._cache is not None and self._cache.has(text))

    def _recall(self, text: str) -> Tensor | None:
        if text in self._known:
            return self._known[text]
        if self._cache is None:
            return None
        stored = self._cache.get(text)
        return None if stored is None else stored.to(self._dtype)

    @torch.no_grad()
    def _make(self, texts: Sequence[str], device: torch.device) -> None:
        """Embed texts on a device; they are kept on disk, or else in the CPU's memory."""
        tokenizer, encoder = self._load()
        nn.Module.to(encoder, device)
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
            made = encoder(tokens.to(device))[0][0].to(self._dtype).cpu()
            if self._cache is not None:
                self._cache.put(text, made)
            self._known[text] = made
            while len(self._known) > _MEMORY:
                self._known.popitem(last=False)

    def _warn_if_cut(self, text: str, num_tokens: int) -> None:
        if num_tokens > self._max_tokens:
            warnings.warn(
                f"prompt of {num_tokens} tokens is cut to the model's {self._max_tokens}: "
                f"{text[:60]!r}...",
                stacklevel=2,
            )
