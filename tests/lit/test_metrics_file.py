"""Whole lines whatever happens."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anti_i2v_lit.lit.metrics_file import MetricsFile

_WRITER = """
import sys
from pathlib import Path
from anti_i2v_lit.lit.metrics_file import MetricsFile
file = MetricsFile(Path(sys.argv[1]), ["number", "text"])
number = 0
while True:
    file.add({"number": number, "text": "x" * 500})
    number += 1
"""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_values_read_back_with_the_standard_reader(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "metrics.csv"
    file = MetricsFile(path, ["a", "b", "c"])
    file.add({"a": 'comma, "quote"\nand line', "b": 0.1 + 0.2, "c": float("inf")})
    file.add({"b": None, "c": 7})
    file.close()
    again = MetricsFile(path, ["a", "b", "c"])
    again.add({"a": "名"})
    again.close()
    assert read(path) == [
        {"a": 'comma, "quote" and line', "b": "0.3", "c": "inf"},
        {"a": "", "b": "", "c": "7"},
        {"a": "名", "b": "", "c": ""},
    ]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, ["a", "b"])
    with pytest.raises(ValueError, match="no such column: c"):
        file.add({"c": 1})
    file.close()
    with pytest.raises(ValueError, match="other columns than a, c"):
        MetricsFile(path, ["a", "c"])


def test_a_killed_writer_leaves_whole_lines_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)])
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size > 100_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rows = read(path)
    assert [int(row["number"]) for row in rows] == list(range(len(rows)))
    assert all(row["text"] == "x" * 500 for row in rows)
    assert path.read_bytes().endswith(b"\n")
    file = MetricsFile(path, ["number", "text"])
    file.add({"number": -1})
    file.close()
    assert read(path)[-1] == {"number": "-1", "text": ""}
