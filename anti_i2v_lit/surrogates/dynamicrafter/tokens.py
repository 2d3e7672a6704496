"""Tokenizers: OpenCLIP's, which the published checkpoints go without, or one beside the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FIRST, _LAST, _PADDING = "<start_of_text>", "<end_of_text>", "<padding>"


def tokenizer_for(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in `folder/tokenizer`, or OpenCLIP's where there is none."""
    from transformers import AutoTokenizer

    beside = folder / "tokenizer"
    if beside.is_dir():
        return AutoTokenizer.from_pretrained(beside, local_files_only=True)
    return openclip_tokenizer()


def openclip_tokenizer() -> PreTrainedTokenizerBase:
    """OpenCLIP's byte-pair tokens from the tables in its package, padded with token 0."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    tables = SimpleTokenizer()
    return CLIPTokenizer(
        # OpenCLIP pads with number 0, which is "!" inside a word; as padding it needs a name of
        # its own, or every "!" of a prompt would be cut out in front of the byte pairs.
        vocab={**tables.encoder, _PADDING: 0},
        merges=list(tables.bpe_ranks),
        unk_token=_LAST,
        bos_token=_FIRST,
        eos_token=_LAST,
        pad_token=_PADDING,
    )
