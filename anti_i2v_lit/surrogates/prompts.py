"""Prompt embeddings: made once by a text encoder that is loaded for that and dropped again.

An embedding differs by its last bits from device to device, and a cloak with it. So the device
follows from settings alone: not from whether a text was known beforehand, nor from what else lies
in memory, both of which may be otherwise when a run is resumed or spread over other devices. On
the CPU, the default, the encoder never lies beside a denoiser. Of many texts, those that a disk
holds leave the memory again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.surrogates.sharding.scratch import conversions_in_memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

TextModel = tuple["PreTrainedTokenizerBase", "T5EncoderModel"]
_MEMORY = 256  # texts kept in the CPU's memory; one of CogVideoX-5B takes 1.8 MB
_PLACED = 32  # texts kept where they are used
_SAMPLE_BYTES = 65536
_CPU = torch.device("cpu")
_DEVICES = ("cpu", "cuda")
_MANY_TEXTS, _LARGE_ENCODER = 16, 1_000_000_000  # texts, and weights, for which a CPU is slow


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


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """How a model's texts are embedded.

    Attributes:
        cache: folder of embeddings; "" to keep them in memory only.
        device: where the text encoder runs, "cpu" or "cuda".
        texts: to embed before the denoiser is loaded.
    """

    cache: str = ""
    device: str = "cpu"
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse another device."""
        check_in(self.device, _DEVICES, "prompt_device")

    def embedder(
        self,
        load: Callable[[], TextModel],
        max_tokens: int,
        dtype: torch.dtype,
        model_key: Callable[[], str],
    ) -> PromptEmbedder:
        """Make the embedder of a model.

        Args:
            load: as for `PromptEmbedder`.
            max_tokens: tokens a prompt is padded or cut to.
            dtype: of the embeddings.
            model_key: identity of the text encoder and of its settings; asked for only where
                embeddings are kept on a disk, where those of each device are kept apart.

        Raises:
            ValueError: a GPU is asked for, and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "prompt_device is 'cuda', and there is no GPU here; set prompt_device=cpu (which "
                "changes the last bits of prompt embeddings, and cloaks with them)"
            )
        cache = None
        if self.cache:
            folder = Path(self.cache).expanduser()
            cache = PromptCache(folder, f"{model_key()} on {self.device}")
        return PromptEmbedder(load, max_tokens, dtype, cache, torch.device(self.device))


class PromptEmbedder:
    """Texts to T5 embeddings, as the CogVideoX pipeline makes them: padded, without a mask.

    Args:
        load: returns tokenizer and text encoder; called only when a text is new.
        max_tokens: tokens a prompt is padded or cut to.
        dtype: of the embeddings.
        cache: on disk; None keeps them in memory only.
        device: where the text encoder runs, for all texts.
    """

    def __init__(
        self,
        load: Callable[[], TextModel],
        max_tokens: int,
        dtype: torch.dtype,
        cache: PromptCache | None = None,
        device: torch.device = _CPU,
    ) -> None:
        self._load, self._max_tokens, self._dtype, self._cache = load, max_tokens, dtype, cache
        self._device = device
        self._prepared: dict[str, Tensor] = {}
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._placed: OrderedDict[tuple[str, torch.device], Tensor] = OrderedDict()

    def prepare(self, prompts: Sequence[str]) -> None:
        """Make the embeddings of known texts, before they are needed one by one.

        The text encoder is loaded at most once, for the texts that neither memory nor disk holds,
        and is released before the return. The embeddings wait on the disk, or else in the CPU's
        memory, which holds the first 256 of them, whatever comes up later.

        Args:
            prompts: texts, in the order of their use.
        """
        new = [text for text in dict.fromkeys(prompts) if not self._has(text)]
        room = _MEMORY - len(self._prepared)
        if self._cache is None and len(new) > room:
            warnings.warn(
                f"{len(new)} prompts and no prompt_cache: {room} are embedded beforehand, the "
                "others one by one, with the text encoder loaded for each; set prompt_cache",
                stacklevel=2,
            )
            new = new[:room]
        if new:
            self._make(new)
        if self._cache is None:
            self._prepared |= {text: self._known.pop(text) for text in new}

    def embed(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Return embeddings [B, max_tokens, D] on a device.

        The text encoder is loaded at most once per call, for the texts that neither memory nor
        disk holds, and is released before the return. `device` is where the embeddings go, not
        where it runs.
        """
        found = {
            text: self._recall(text)
            for text in dict.fromkeys(prompts)
            if (text, device) not in self._placed
        }
        new = [text for text, value in found.items() if value is None]
        if new:
            self._make(new)
            found |= {text: self._recall(text) for text in new}
        for text, value in found.items():
            assert value is not None, "made above"
            self._placed[text, device] = value.to(device)
        rows = torch.stack([self._placed[text, device] for text in prompts])
        while len(self._placed) > _PLACED:
            self._placed.popitem(last=False)
        return rows

    def _has(self, text: str) -> bool:
        in_memory = text in self._prepared or text in self._known
        return in_memory or (self._cache is not None and self._cache.has(text))

    def _recall(self, text: str) -> Tensor | None:
        if text in self._prepared:
            return self._prepared[text]
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        if self._cache is None:
            return None
        stored = self._cache.get(text)
        return None if stored is None else stored.to(self._dtype)

    @torch.no_grad()
    def _make(self, texts: Sequence[str]) -> None:
        """Embed texts; they are kept on disk, or else in the CPU's memory."""
        tokenizer, encoder = self._load()
        nn.Module.to(encoder, self._device)
        self._warn_if_slow(encoder, len(texts))
        with conversions_in_memory():
            for text in texts:
                self._keep(text, self._embedding(tokenizer, encoder, text))

    def _embedding(
        self, tokenizer: PreTrainedTokenizerBase, encoder: T5EncoderModel, text: str
    ) -> Tensor:
        tokens = tokenizer(
            [text],
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        ).input_ids
        self._warn_if_cut(text, len(tokenizer(text).input_ids))
        made: Tensor = encoder(tokens.to(self._device))[0][0]
        return made.to(self._dtype).cpu()

    def _keep(self, text: str, made: Tensor) -> None:
        if self._cache is not None:
            self._cache.put(text, made)
        self._known[text] = made
        while len(self._known) > _MEMORY:
            self._known.popitem(last=False)

    def _warn_if_slow(self, encoder: nn.Module, num_texts: int) -> None:
        if self._device.type != "cpu" or not torch.cuda.is_available() or num_texts < _MANY_TEXTS:
            return
        num_weights = sum(p.numel() for p in encoder.parameters())
        if num_weights >= _LARGE_ENCODER:
            warnings.warn(
                f"{num_texts} prompts are embedded on the CPU by a text encoder of "
                f"{num_weights / 1e9:.1f} billion weights; prompt_device=cuda is faster, and "
                "prompt_cache keeps them for the next run",
                stacklevel=2,
            )

    def _warn_if_cut(self, text: str, num_tokens: int) -> None:
        if num_tokens > self._max_tokens:
            warnings.warn(
                f"prompt of {num_tokens} tokens is cut to the model's {self._max_tokens}: "
                f"{text[:60]!r}...",
                stacklevel=2,
            )
