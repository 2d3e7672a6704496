"""What is computed once and what is computed again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anti_i2v_lit.metrics.memory import MAX_PHOTOS, LastResult, PhotoMemory, fingerprint


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


@pytest.mark.parametrize("place", [(0, 0, 1), (3, 2, 0), (7, 4, 1)])
def test_any_moved_landmark_is_seen(place: tuple[int, int, int]) -> None:
    landmarks = torch.arange(80.0).view(8, 5, 2)
    moved = landmarks.clone()
    moved[place] += 1e-3
    assert fingerprint(landmarks) == fingerprint(landmarks.clone()) != fingerprint(moved)
    last, count, frames = LastResult[int](), Counter(), torch.zeros(3)
    assert last.get(frames, count, fingerprint(landmarks)) == 1
    assert last.get(frames, count, fingerprint(moved)) == 2


def test_a_photo_with_other_landmarks_is_looked_at_again() -> None:
    memory, count = PhotoMemory[int](), Counter()
    assert [memory.get("a", photo(0.5), count, extra) for extra in (1, 1, 2)] == [1, 1, 2]


def test_photos_are_told_apart_by_a_sample() -> None:
    large = torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(0))
    assert fingerprint(large) == fingerprint(large.clone()) != fingerprint(large.flip(-1))
    assert fingerprint(torch.full((3, 2), torch.nan)) == fingerprint(torch.full((3, 2), torch.nan))
