import pytest

from anti_i2v_lit.slurm.parts import list_shards, part_of


def test_braces_and_globs_are_expanded_in_order(tmp_path):
    for name in ("b.tar", "a.tar"):
        (tmp_path / name).touch()
    assert list_shards([f"{tmp_path}/*.tar"]) == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
    assert list_shards(["s/{000..002}.tar::pipe:cat x.tar"]) == [
        "pipe:cat x.tar", "s/000.tar", "s/001.tar", "s/002.tar",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 13])
def test_the_parts_are_the_whole_without_overlap_and_even(count):
    shards = list_shards(["s-{000..009}.tar"])
    parts = [part_of(shards, f"{index}/{count}") for index in range(count)]
    assert [name for part in parts for name in part] == shards
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", ["3/3", "1", "a/b", "-1/2", "1/0"])
def test_other_notations_are_refused(part):
    with pytest.raises(ValueError, match="I/N"):
        part_of(["a.tar"], part)


def test_photos_outside_shards_and_globs_without_a_match_are_refused(tmp_path):
    with pytest.raises(ValueError, match="anti-i2v shard"):
        list_shards([str(tmp_path)])
    with pytest.raises(ValueError, match="nothing matches"):
        list_shards([f"{tmp_path}/*.tar"])
