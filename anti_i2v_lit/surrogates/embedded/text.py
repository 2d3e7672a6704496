"""The prompt side: a word-level tokenizer over a motion vocabulary and a tiny frozen T5."""

from __future__ import annotations

import pathlib

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

TEXT_LENGTH = 16  # tokens of a prompt, padding and end mark included
TEXT_WIDTH = 64  # channels of a token

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"

# Words of the training captions and the words users write around them. Anything else is <unk>.
# The order is part of every trained model.
VOCABULARY: tuple[str, ...] = tuple(
    (pathlib.Path(__file__).parent / "vocabulary.txt").read_text(encoding="utf-8").split()
)


def build_tokenizer(length: int = TEXT_LENGTH) -> PreTrainedTokenizerFast:
    """Lower-casing word tokenizer that appends ``</s>`` and pads with ``<pad>``.

    Args:
        length: Most tokens of a prompt.
    """
    words = [PAD, END, UNKNOWN, *VOCABULARY]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, words.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=length,
    )


def build_text_encoder(seed: int = 0) -> T5EncoderModel:
    """A two-layer T5 encoder with random weights that depend on ``seed`` alone; never trained."""
    config = T5Config(
        vocab_size=len(VOCABULARY) + 3,
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    # T5 draws its weights from the global generator; the fork keeps the caller's state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = T5EncoderModel(config)
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def embed_prompts(
    prompts: list[str], tokenizer: PreTrainedTokenizerFast, encoder: T5EncoderModel
) -> Tensor:
    """Prompt embeddings ``[N, 16, 64]``, made as the CogVideoX pipeline makes them (no mask)."""
    tokens = tokenizer(
        prompts,
        padding="max_length",
        max_length=TEXT_LENGTH,
        truncation=True,
        return_tensors="pt",
    )
    return encoder(tokens.input_ids)[0]
