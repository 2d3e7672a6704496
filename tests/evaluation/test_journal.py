"""Lines that were torn, by a kill or by a full disk, and lines of other processes."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anti_i2v_lit.evaluation.journal import Journal, NotWritten


@contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """Files grow to this size and no further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lines(folder: Path) -> list[object]:
    return [json.loads(line) for _, _, line in Journal(folder, "rows").new_lines()]


def test_a_write_that_fails_half_way_leaves_no_torn_line(tmp_path: Path) -> None:
    journal, watching = Journal(tmp_path, "rows"), Journal(tmp_path, "rows")
    journal.append(["first"])
    assert [text for _, _, text in watching.new_lines()] == ['"first"']
    with at_most(30), pytest.raises(NotWritten, match="rows"):
        journal.append(["second", "a third one that does not fit"])
    assert [text for _, _, text in watching.new_lines()] == ['"second"'], "whole, so it stays"
    journal.append(["fourth"])
    journal.append(["fifth"])
    assert [text for _, _, text in watching.new_lines()] == ['"fourth"', '"fifth"']
    assert lines(tmp_path) == ["first", "second", "fourth", "fifth"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("torn", [1, 65536, 200_000])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps("x" * 100_000) + "\n" + "y" * torn)
    Journal(tmp_path, "rows").append(["z"])
    assert lines(tmp_path) == ["x" * 100_000, "z"]
    path.write_text("y" * torn)
    Journal(tmp_path, "rows").append(["z"])
    assert lines(tmp_path) == ["z"]
