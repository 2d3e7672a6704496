"""Groups of photos: cut the same way on every run, and dealt out to the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from anti_i2v_lit.data.folder import Scan
from anti_i2v_lit.data.shards.reading import StreamShard

Group = tuple[str, ...]


def plan_groups(
    keys: Sequence[str],
    finished: set[str],
    in_flight: Sequence[Group],
    batch_size: int,
    recorded: AbstractSet[str] = frozenset(),
) -> list[Group]:
    """Group keys so that a resumed run has the compositions of an undisturbed one.

    Groups in flight come first, as they were; the rest is cut from all keys, finished or not, so
    that finished photos do not shift the cuts. Groups without unfinished photos are left out.
    Groups whose unfinished photos all have a row (refused and failed ones) come last: a run that
    is interrupted often must not spend its time on trying them again.

    Args:
        keys: all photos, sorted.
        finished: those that need no work.
        in_flight: compositions with stored progress; keys that are gone stay in them.
        batch_size: photos per group.
        recorded: photos that have a row, finished or not.
    """
    todo = set(keys) - finished
    started = [g for g in in_flight if not todo.isdisjoint(g)]
    taken = {key for group in started for key in group}
    rest = [key for key in keys if key not in taken]
    cuts = [tuple(rest[i : i + batch_size]) for i in range(0, len(rest), batch_size)]
    groups = started + [group for group in cuts if not todo.isdisjoint(group)]
    return sorted(groups, key=lambda group: recorded >= todo.intersection(group))


def plan_all(
    found: Scan,
    finished: set[str],
    in_flight: Sequence[Group],
    batch_size: int,
    recorded: AbstractSet[str],
) -> list[Group]:
    """Groups of all photos; a group never spans two shards.

    So the compositions inside a shard do not depend on which other shards a run was given. Shards
    that can only be read forward are worked through in their own order.
    """
    units = [sorted(s.key for s in found.sources if s.sample is None)]
    units += [sorted(shard.samples) for shard in found.shards]
    streams = {
        key: place
        for shard in found.shards
        if isinstance(shard.shard, StreamShard)
        for place, key in enumerate(shard.samples)
    }
    groups: list[Group] = []
    for unit in units:
        part = plan_groups(unit, finished, in_flight, batch_size, recorded)
        groups += sorted(part, key=lambda group: min(streams.get(key, -1) for key in group))
    started, todo = set(in_flight), {s.key for s in found.sources} - finished
    return sorted(groups, key=lambda g: (recorded >= todo.intersection(g), g not in started))


def deal(groups: Sequence[Group], homes: Mapping[str, str], ranks: int) -> list[list[Group]]:
    """Each rank's groups, in order: whole shards where there are enough, single groups else.

    As many shards as go evenly into the ranks stay with one rank each, which reads them from
    front to back; the groups of the others, and of photos outside shards, are spread so that all
    ranks have as many photos as possible to within one group.

    Args:
        groups: all groups.
        homes: photo's key -> name of its shard, for photos from shards.
        ranks: number of ranks.
    """
    by_shard: dict[str, list[Group]] = {}
    single: list[list[Group]] = []
    for group in groups:
        home = next((homes[key] for key in group if key in homes), None)
        if home is None:
            single.append([group])
        else:
            by_shard.setdefault(home, []).append(group)
    parts = sorted(by_shard.values(), key=_photos, reverse=True)
    whole = len(parts) // ranks * ranks
    single += [[group] for part in parts[whole:] for group in part]
    shares: list[list[Group]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for part in parts[:whole] + single:
        rank = loads.index(min(loads))
        shares[rank] += part
        loads[rank] += _photos(part)
    order = {group: place for place, group in enumerate(groups)}
    return [sorted(share, key=order.__getitem__) for share in shares]


def _photos(groups: Sequence[Group]) -> int:
    return sum(len(group) for group in groups)
