"""Published architectures at toy size with seeded random weights, built in memory, no files.

One file per architecture; nothing heavy is imported until a miniature is built.
"""

from anti_i2v_lit.miniatures.cogvideox import (
    TEXT_TOKENS,
    TEXT_WIDTH,
    tiny_cogvideox,
    tiny_tokenizer,
)

__all__ = ["TEXT_TOKENS", "TEXT_WIDTH", "tiny_cogvideox", "tiny_tokenizer"]
