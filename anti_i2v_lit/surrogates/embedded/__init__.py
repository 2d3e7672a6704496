"""Small image-to-video models that ship with the package, and the code that trained them."""

from __future__ import annotations

import pathlib

_WEIGHTS = pathlib.Path(__file__).parent / "weights"


def embedded_checkpoint(name: str = "mmdit_128") -> pathlib.Path:
    """Folder of a shipped model, in the layout in which models of its kind are published.

    Args:
        name: Name of the model: architecture and side of its pictures in pixels.

    Returns:
        The installed folder.

    Raises:
        ValueError: No model of that name is installed.
    """
    known = sorted(path.parent.name for path in _WEIGHTS.glob("*/MODEL_CARD.md"))
    if name not in known:
        raise ValueError(
            f"name arrived as {name!r}; expected one of {known}; use a known name or train the "
            "model with python -m anti_i2v_lit.surrogates.embedded.train."
        )
    return _WEIGHTS / name
