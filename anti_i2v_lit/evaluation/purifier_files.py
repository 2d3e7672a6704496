"""The weight files behind a purification, as a digest: other weights are another purification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anti_i2v_lit import purifications
from anti_i2v_lit.checkpoints import EMBEDDED, PACKAGED, files_digest, packaged_folder
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

    All their bytes count (`files_digest`): these files are small, and weights trained further can
    agree with their start in name, size and both ends.

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
    root = _place_of(name, place)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return files_digest([file for file in files if file.suffix != ".md"])


def _place_of(name: str, place: str) -> Path:
    """File or folder behind a purification's setting."""
    for packaged, folder_name in PACKAGED.items():
        if place == folder_name:
            return packaged_folder(packaged)
    if place == EMBEDDED:
        return WEIGHTS / _PACKAGED_AT.get(name, name)
    return Path(place).expanduser()
