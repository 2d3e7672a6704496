"""Converted weights lie in files, with the values of torch's own conversion."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.surrogates.sharding.scratch import ConvertedInFiles


def resident(kind: str) -> int:
    """Anonymous ("RssAnon") or file-backed ("RssFile") memory of this process, bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{kind}:\s+(\d+) kB", text)[1])  # type: ignore[index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_kinds_are_those_of_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.randn(300, 500, generator=torch.Generator().manual_seed(1)).half()
    with ConvertedInFiles(str(tmp_path)):
        found = whole.to(dtype)
        turned = whole.t().to(dtype=dtype)
        small, number = whole[:2, :2].to(dtype), torch.arange(100_000).to(dtype)
        both = whole.to("cpu", dtype)
    assert torch.equal(found, whole.to(dtype)) and found.dtype == dtype
    assert torch.equal(turned, whole.t().to(dtype)) and torch.equal(both, whole.to(dtype))
    assert torch.equal(small, whole[:2, :2].to(dtype)) and number.dtype == dtype
    assert os.listdir(tmp_path) == [], "the files have no names any more"
    found += 1  # a private copy, writable
    assert torch.equal(found, whole.to(dtype) + 1)


def test_the_memory_is_the_file_s(tmp_path: Path) -> None:
    weights = [torch.zeros(1 << 20, dtype=torch.float16) for _ in range(16)]
    before = resident("RssAnon"), resident("RssFile")
    with ConvertedInFiles(str(tmp_path)):
        kept = [weight.float() for weight in weights]
    assert resident("RssAnon") - before[0] < 8e6, "of 67 MB"
    assert resident("RssFile") - before[1] > 60e6
    # Asked of the system itself: an allocator may have as much left from what was freed before.
    with mmap.mmap(-1, 1 << 26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as plain:
        plain.write(b"1" * (1 << 26))
        assert resident("RssAnon") - before[0] > 60e6, "the meter sees memory that is no file's"
    assert len(kept) == 16


def test_a_full_disk_is_a_plain_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with ConvertedInFiles(str(tmp_path)), pytest.raises(ValueError, match="TMPDIR"):
        torch.zeros(1 << 20, dtype=torch.float16).float()
    assert os.listdir(tmp_path) == []
