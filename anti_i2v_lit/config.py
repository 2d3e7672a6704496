"""Strict settings: dataclasses filled from YAML and `section.field=value`, unknown keys refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anti_i2v_lit.checks import did_you_mean

C = TypeVar("C")

# Settings of cloaks that change no byte of one: limits on what is read, where the embeddings of
# texts are kept (their device changes last bits, and with them the cloak), and whether what the
# backward pass needs is kept or computed again by the same operations.
_SECTIONS_ASIDE = ("reading",)
_SURROGATES_ASIDE = ("prompt_cache", "activation_checkpointing")


def deciding(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Of plain settings of cloaks, those that decide the bytes; folders made before keep more."""
    found = {k: v for k, v in plain.items() if k not in _SECTIONS_ASIDE}
    nodes = found.get("surrogates")
    if isinstance(nodes, list):
        found["surrogates"] = [
            {k: v for k, v in node.items() if k not in _SURROGATES_ASIDE}
            if isinstance(node, Mapping)
            else node
            for node in nodes
        ]
    return found


def parse_config(cls: type[C], fields: Mapping[str, Any], where: str) -> C:
    """Fill a keyword-only dataclass from a mapping, with type checks and its own checks.

    Raises:
        ValueError: unknown key (with the nearest known one), wrong type, or a refused value;
            the message starts with `where`.
    """
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in fields:
        if key not in known:
            raise ValueError(
                f"{where}: unknown field {key!r}.{did_you_mean(str(key), known)} "
                f"Known: {', '.join(known) or '(none)'}"
            )
    try:
        schema = OmegaConf.structured(cls)
        merged = OmegaConf.merge(schema, OmegaConf.create(dict(fields)))
        result = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        first = str(error).split("\n")[0]
        raise ValueError(f"{where}: {first}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    assert isinstance(result, cls)
    return result


def read_sections(path: Path) -> dict[str, Any]:
    """The mapping of sections that a YAML file holds; an empty file holds none.

    Raises:
        ValueError: no such file, no YAML, or something else than a mapping.
    """
    if not path.is_file():
        raise ValueError(f"--config: {path} is not a file")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"--config: {path} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"--config: {path} must hold a mapping of sections")
    return given


def check_sections(cls: type, given: Mapping[str, Any], where: str) -> None:
    """Refuse sections that a dataclass of settings does not have, with the nearest known one.

    Raises:
        ValueError: the message starts with `where`.
    """
    known = [f.name for f in dataclasses.fields(cls)]
    for key in given:
        if key not in known:
            raise ValueError(
                f"{where}: unknown section {key!r}.{did_you_mean(str(key), known)} "
                f"Known: {', '.join(known)}"
            )


def parse_override(cls: type, override: str) -> tuple[str, Any]:
    """The dotted key and the value of one `section.field=value`, which is read as YAML.

    Raises:
        ValueError: another form, an unknown section of `cls`, or a value that is no YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"expected section.field=value, got {override!r}")
    check_sections(cls, {key.split(".")[0]: None}, "override")
    try:
        return key, yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"override {override!r}: {str(error).splitlines()[0]}") from error


def digest(settings: Any) -> str:
    """SHA-256 over the canonical JSON of plain data; equal settings give equal digests.

    File names need not be UTF-8; their odd bytes count like any others.
    """
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
