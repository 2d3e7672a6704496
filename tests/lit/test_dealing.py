"""Groups are cut inside shards and dealt so that every photo has one rank."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from anti_i2v_lit.data.folder import Scan, SourceFile, scan
from anti_i2v_lit.lit.dealing import deal, plan_all
from tests.data.shards.making import samples, write


def shards(folder: Path, *sizes: int) -> Scan:
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        write(folder / f"p-{number:06d}.tar", samples(size))
    return scan([f"{folder}/p-*.tar"], folder / "out")


@pytest.mark.parametrize(
    ("sizes", "ranks", "loads"),
    [
        ((3, 3, 3, 3), 2, [6, 6]),  # whole shards
        ((4, 4, 4), 2, [6, 6]),  # one each, the third by sample
        ((5,), 4, [2, 1, 1, 1]),  # fewer shards than ranks
        ((6, 1), 2, [6, 1]),  # whole shards, as large as they are
        ((1,), 3, [1, 0, 0]),
    ],
)
def test_every_photo_has_one_rank(
    tmp_path: Path, sizes: tuple[int, ...], ranks: int, loads: list[int]
) -> None:
    found = shards(tmp_path / "in", *sizes)
    homes = {s.key: s.key.partition("/")[0] for s in found.sources}
    groups = plan_all(found, set(), [], 1, set())
    shares = deal(groups, homes, ranks)
    assert [len(share) for share in shares] == loads
    assert sorted(itertools.chain(*shares)) == sorted(groups)
    assert all(share == sorted(share, key=groups.index) for share in shares)


def test_photos_outside_shards_are_dealt_in_turns() -> None:
    groups = [(f"{n}.jpg",) for n in range(5)]
    assert deal(groups, {}, 2) == [groups[0::2], groups[1::2]]


def test_a_group_never_spans_two_shards_and_does_not_depend_on_the_others(tmp_path: Path) -> None:
    both = shards(tmp_path / "in", 3, 3)
    alone = scan([f"{tmp_path}/in/p-000001.tar"], tmp_path / "out")
    groups = plan_all(both, set(), [], 2, set())
    assert [len(group) for group in groups] == [2, 1, 2, 1]
    assert plan_all(alone, set(), [], 2, set()) == groups[2:]
    # Finished photos do not shift the cuts; groups in flight come first, recorded ones last.
    finished = {groups[0][0]}
    order = plan_all(both, finished, [groups[3]], 2, set(groups[0]))
    assert order == [groups[3], groups[1], groups[2], groups[0]]


def test_a_stream_is_worked_through_in_its_own_order(tmp_path: Path) -> None:
    members = samples(3)
    path = write(tmp_path / "p.tar", [*members[4:], *members[2:4], *members[:2]])
    photo = SourceFile(key="a.jpg", path=tmp_path / "a.jpg")
    found = scan([f"pipe:cat '{path}'"], tmp_path / "out")
    mixed = Scan(sources=(photo, *found.sources), broken=(), ignored=0, shards=found.shards)
    assert plan_all(mixed, set(), [], 1, set()) == [
        ("a.jpg",), ("p/000002.jpg",), ("p/000001.png",), ("p/000000.png",)
    ]  # fmt: skip
