"""Which photos of a run need no work: cloaked, with their file, and not changed since."""

from __future__ import annotations

from collections.abc import Mapping

from anti_i2v_lit.archive.changes import possibly_changed
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.shards.reading import StreamShard


def finished_and_changed(
    ledger: Ledger, sources: Mapping[str, SourceFile]
) -> tuple[set[str], set[str]]:
    """Keys that need no work, and keys of cloaked photos that must be read again.

    A changed original may turn out to hold the same bytes; only reading it can tell.

    Args:
        ledger: of the output folder.
        sources: key -> where the photo is now.

    Raises:
        ValueError: another photo was already cloaked under the name of one of these.
    """
    rows, finished = ledger.rows(), ledger.finished()
    # A pipe or URL cannot be asked when it changed.
    places = {k: s.path for k, s in sources.items() if k in finished and not is_stream(s)}
    changed = possibly_changed(rows, places)
    return finished - changed, changed


def is_stream(source: SourceFile) -> bool:
    """Whether a photo comes from a pipe or URL, which is read forward only."""
    return source.sample is not None and isinstance(source.sample.shard, StreamShard)
