"""Names in the output folder that this run may write: free ones, and those of its own cloaks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.folder import Originals, SourceFile
from anti_i2v_lit.data.shards.listing import ShardListing


class Targets:
    """Tells files that the runs of this folder made from files of somebody else.

    A file is ours if some line of the manifest names it, or if its photo has all its steps on
    disk: the kill may have come between the file and its line.

    Args:
        out: folder of the cloaks.
        sources: all photos of the run, whose files are not to be touched.
        names: key -> relative name of the cloak, of the photos to do.
    """

    def __init__(self, out: Path, sources: Sequence[SourceFile], names: Mapping[str, str]) -> None:
        self._out, self._originals, self._names = out, Originals(sources), names
        self._ours: set[str] = set()

    def blocked(self, ledger: Ledger, store: InFlightStore, steps: int) -> dict[str, str]:
        """Key -> reason of the photos whose names are taken; look before the first step.

        Args:
            ledger: of the folder.
            store: of the folder.
            steps: that a finished photo has.
        """
        there = {k for k, name in self._names.items() if os.path.lexists(self._out / name)}
        if there:
            written = ledger.outputs()
            self._ours = {k for k in there if self._names[k] in written}
            self._ours |= _with_all_steps(store, steps)
        return {key: self._taken(key) for key in sorted(there - self._ours)}

    def check(self, key: str, target: Path) -> None:
        """Refuse to put the cloak of a photo in the place of anything that is not its own.

        Raises:
            PhotoFailure: an original or a file of somebody else lies there.
        """
        if target in self._originals:
            raise PhotoFailure(f"{target} is an original: give another --out")
        if key not in self._ours and os.path.lexists(target):
            raise PhotoFailure(self._taken(key))

    def _taken(self, key: str) -> str:
        return (
            f"cannot write {self._names[key]}: a file or folder that this run did not make is "
            "there; move it away or give another --out"
        )


def _with_all_steps(store: InFlightStore, steps: int) -> set[str]:
    jobs = [item for glimpse in store.peek() for item in glimpse.facts.get("jobs", {}).items()]
    return {key for key, facts in jobs if int(facts.get("step", 0)) >= steps}


def check_shards(out: Path, listings: Sequence[ShardListing], ledger: Ledger) -> None:
    """Refuse to write over tars that no run of this folder made.

    Args:
        out: folder of the cloaks.
        listings: the input shards, whose names the output has as well.
        ledger: of the folder; a tar of ours has rows for its samples.

    Raises:
        ValueError: naming the tar.
    """
    rows = ledger.rows()
    for listing in listings:
        tar = out / f"{listing.shard.name}.tar"
        if os.path.lexists(tar) and not any(k in rows for k in (*listing.keys, *listing.broken)):
            raise ValueError(
                f"{tar} is there and no run of this folder made it: move it away or give "
                "another --out"
            )
