"""The weight files behind a purification, as a digest: other weights are another purification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anti_i2v_lit import purifications
from anti_i2v_lit.checkpoints import EMBEDDED, PACKAGED, files_digest, model_digest
from anti_i2v_lit.config import parse_config
from anti_i2v_lit.purifications import PURIFICATIONS

WEIGHTS = Path(purifications.__file__).parent / "weights"
# The fields by which networks among the purifications say where their weights are.
_FIELDS = ("path", "model", "upscaler")
_PACKAGED_AT = {
    "diffpure": "patch_diffusion",
    "gridpure": "patch_diffusion",
    "noisy_upscaling": "patch_diffusion",
    "remover": "remover",
}


def weights_digest(config: Mapping[str, Any] | None) -> str:
    """Digest of the weight files that a purification would load; "" where it loads none.

    Files are known as those of models are, by name, size and both ends (`files_digest`).

    Args:
        config: {name, <fields>}; None for the untouched file.

    Raises:
        ValueError: the settings are refused.
    """
    if config is None:
        return ""
    name = str(config["name"])
    cls: Any = PURIFICATIONS.load(name)
    given = {field: value for field, value in config.items() if field != "name"}
    settings = parse_config(cls.Config, given, where=f"purification {name!r}")
    places = [str(value) for field, value in vars(settings).items() if field in _FIELDS]
    return " ".join(found for place in places if (found := _digest_at(name, place)))


def _digest_at(name: str, place: str) -> str:
    if place in PACKAGED.values():
        return next(model_digest(n, EMBEDDED) for n, home in PACKAGED.items() if home == place)
    root = WEIGHTS / _PACKAGED_AT.get(name, name) if place == EMBEDDED else Path(place).expanduser()
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return files_digest([file for file in files if file.suffix != ".md"])
