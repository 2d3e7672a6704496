"""The full published models with random weights, built where they shall run.

Time and memory do not depend on the values of weights, so a benchmark needs no checkpoint. The
configurations are those of the published `config.json` files; the text encoder is replaced by
random embeddings of its shape, because it never sits beside the denoiser.
"""

from __future__ import annotations

import importlib

from anti_i2v_lit.bench.published.base import Size
from anti_i2v_lit.checks import check_in
from anti_i2v_lit.surrogates.base import Surrogate

_HERE = "anti_i2v_lit.bench.published"
PUBLISHED: dict[str, str] = {
    "cogvideox_5b": f"{_HERE}.cogvideox:cogvideox_5b",
    "cogvideox_1_5_5b": f"{_HERE}.cogvideox:cogvideox_1_5_5b",
    "dynamicrafter_512": f"{_HERE}.dynamicrafter:dynamicrafter_512",
    "dynamicrafter_1024": f"{_HERE}.dynamicrafter:dynamicrafter_1024",
    "ltx": f"{_HERE}.ltx:ltx_2b",
    "open_sora": f"{_HERE}.open_sora:open_sora_1_2",
    "svd": f"{_HERE}.svd:svd_xt",
    "wan_2_1": f"{_HERE}.wan:wan_2_1_14b",
    "wan_2_2": f"{_HERE}.wan:wan_2_2_5b",
}
"""Name -> "module:builder"."""


def random_surrogate(name: str, size: Size) -> Surrogate:
    """Build a published model with random weights; weights are made once, in place.

    Args:
        name: out of `PUBLISHED`.
        size: precision, device, and sizes that differ from the published ones.

    Raises:
        ValueError: an unknown name, or sizes that the model cannot take.
    """
    check_in(name, PUBLISHED, "published model")
    module, _, function = PUBLISHED[name].partition(":")
    build = getattr(importlib.import_module(module), function)
    surrogate: Surrogate = build(size)
    return surrogate.to(size.device)
