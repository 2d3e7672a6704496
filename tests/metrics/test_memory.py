"""What is computed once and what is computed again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anti_i2v_lit.metrics.memory import MAX_PHOTOS, LastResult, PhotoMemory


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def test_the_last_tensor_is_looked_at_once() -> None:
    last, count, frames = LastResult[int](), Counter(), torch.zeros(3)
    assert last.get(frames, count) == last.get(frames, count) == 1
    assert last.get(frames, count, extra="other") == 2


def test_another_or_a_changed_tensor_is_looked_at_again() -> None:
    last, count, frames = LastResult[int](), Counter(), torch.zeros(3)
    last.get(frames, count)
    assert last.get(torch.zeros(3), count) == 2
    last.get(frames, count)
    frames.add_(1)
    assert last.get(frames, count) == 4


def photo(level: float) -> Tensor:
    return torch.full((3, 4, 4), level)


def test_a_named_photo_is_looked_at_once_and_an_unnamed_one_every_time() -> None:
    memory, count = PhotoMemory[int](), Counter()
    assert [memory.get("a", photo(0.5), count) for _ in range(3)] == [1, 1, 1]
    assert [memory.get("", photo(0.5), count) for _ in range(2)] == [2, 3]


def test_one_name_for_two_photos_is_refused() -> None:
    memory, count = PhotoMemory[int](), Counter()
    memory.get("a", photo(0.5), count)
    with pytest.raises(ValueError, match="'a' came with two different photos"):
        memory.get("a", photo(0.6), count)


def test_memory_is_bounded() -> None:
    memory, count = PhotoMemory[int](), Counter()
    for number in range(MAX_PHOTOS + 1):
        memory.get(str(number), photo(0.5), count)
    assert memory.get(str(MAX_PHOTOS), photo(0.5), count) == MAX_PHOTOS + 1
    assert memory.get("0", photo(0.5), count) == MAX_PHOTOS + 2
