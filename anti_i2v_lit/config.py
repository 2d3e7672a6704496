"""Strict settings: dataclasses filled from YAML and `section.field=value`, unknown keys refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anti_i2v_lit.checks import did_you_mean

C = TypeVar("C")


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


def digest(settings: Any) -> str:
    """SHA-256 over the canonical JSON of plain data; equal settings give equal digests."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
