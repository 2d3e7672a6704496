"""What runs over one folder share among them: shards one by one, photos outside shards together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from anti_i2v_lit.archive.lock import FILES
from anti_i2v_lit.archive.outputs import SHARD_SUFFIX
from anti_i2v_lit.data.folder import Scan
from anti_i2v_lit.data.shards.reading import shard_name


def units_of(found: Scan) -> dict[str, set[str]]:
    """Unit -> its photos, good and broken: `portraits-000003.tar`, or "files" for all others."""
    units = {_unit(shard.shard.name): {*shard.samples, *shard.broken} for shard in found.shards}
    files = {s.key for s in found.sources} | {key for key, _ in found.broken}
    files.difference_update(*units.values())
    return {**({FILES: files} if files else {}), **units}


def names_of_units(shards: Sequence[str]) -> list[str]:
    """The units that shards are, without opening them.

    Args:
        shards: paths, pipes and URLs.

    Raises:
        ValueError: one without a name.
    """
    return [_unit(shard_name(url)) for url in shards]


def restricted(found: Scan, units: AbstractSet[str]) -> Scan:
    """What lies in some units only."""
    if units >= units_of(found).keys():
        return found
    shards = tuple(shard for shard in found.shards if _unit(shard.shard.name) in units)
    homes = {key: _unit(s.shard.name) for s in found.shards for key in (*s.samples, *s.broken)}
    return dataclasses.replace(
        found,
        sources=tuple(s for s in found.sources if homes.get(s.key, FILES) in units),
        broken=tuple(pair for pair in found.broken if homes.get(pair[0], FILES) in units),
        shards=shards,
    )


def _unit(shard: str) -> str:
    return shard + SHARD_SUFFIX
