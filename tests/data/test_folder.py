"""Inputs, keys, and what is refused before any photo is read."""

import os

import pytest

from anti_i2v_lit.data.folder import Originals, scan
from anti_i2v_lit.tars import write_tar


@pytest.fixture
def archive(tmp_path):
    for name in ("a/1.jpg", "a/deep/2.PNG", "b/1.jpg", "b/notes.txt", "b/._1.jpg", "b/raw.NEF"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def keys(*inputs, out) -> list[str]:
    return [s.key for s in scan([str(i) for i in inputs], out).sources]


def test_a_folder_keeps_its_structure(archive, tmp_path):
    found = scan([str(archive)], tmp_path / "out")
    assert [s.key for s in found.sources] == ["a/1.jpg", "a/deep/2.PNG", "b/1.jpg", "b/raw.NEF"]
    assert all(s.path == archive / s.key for s in found.sources)
    assert (found.broken, found.ignored) == ((), 1)


def test_several_inputs_are_told_apart_by_folder_and_order_does_not_matter(archive, tmp_path):
    out = tmp_path / "out"
    expected = ["a/1.jpg", "a/deep/2.PNG", "b/1.jpg", "b/raw.NEF"]
    assert keys(archive / "a", archive / "b", out=out) == expected
    assert keys(archive / "b", archive / "a", out=out) == expected


def test_files_and_globs(archive, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert keys(archive / "a" / "1.jpg", out=out) == ["1.jpg"]
    assert keys(archive / "*" / "1.jpg", out=out) == ["a/1.jpg", "b/1.jpg"]
    assert keys(archive / "**" / "*.PNG", out=out) == ["a/deep/2.PNG"]
    monkeypatch.chdir(archive)
    assert keys("a", out=out) == ["1.jpg", "deep/2.PNG"]


def test_one_file_named_twice_is_one_photo(archive, tmp_path):
    assert keys(archive, archive / "a" / "1.jpg", out=tmp_path / "out").count("1.jpg") == 1
    assert len(keys(archive, archive / "a", out=tmp_path / "out")) == 4


def test_a_name_with_brackets_is_a_name(tmp_path):
    (tmp_path / "x[1].jpg").write_bytes(b"x")
    assert keys(tmp_path / "x[1].jpg", out=tmp_path / "out") == ["x[1].jpg"]


def test_equal_names_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match=r"both be written as 1\.jpg"):
        scan([str(archive / "a" / "1.jpg"), str(archive / "b" / "1.jpg")], tmp_path / "out")


@pytest.mark.parametrize("where", [".", "out", "a/deep/out"])
def test_out_in_an_input_is_refused(archive, where):
    with pytest.raises(ValueError, match="lies in the input folder"):
        scan([str(archive)], archive / where)


def test_input_in_out_is_refused_also_through_links(archive, tmp_path):
    with pytest.raises(ValueError, match="lies in --out"):
        scan([str(archive)], tmp_path)
    (tmp_path / "alias").symlink_to(archive)
    with pytest.raises(ValueError, match="lies in the input"):
        scan([str(tmp_path / "alias")], archive / "out")
    with pytest.raises(ValueError, match="lies in the input"):
        scan([str(tmp_path / "photo*")], archive / "out")
    target = tmp_path / "elsewhere"
    target.mkdir()
    (archive / "a" / "link").symlink_to(target)
    with pytest.raises(ValueError, match="leads into --out"):
        scan([str(archive)], target)


def test_a_single_file_must_not_be_written_over(archive):
    with pytest.raises(ValueError, match="original"):
        scan([str(archive / "a" / "1.jpg")], archive / "a")
    with pytest.raises(ValueError, match="original"):
        scan([str(archive / "*" / "1.jpg")], archive / "a")


@pytest.mark.parametrize("named", ["whole folder", "file"])
def test_an_original_that_a_link_leads_to_must_not_be_written_over(archive, tmp_path, named):
    out, links = tmp_path / "out", tmp_path / "links"
    for folder in (out, links):
        folder.mkdir()
    (out / "1.jpg").write_bytes(b"original")
    (links / "1.jpg").symlink_to(out / "1.jpg")
    given = links if named == "whole folder" else links / "1.jpg"
    with pytest.raises(ValueError, match="lies in --out"):
        scan([str(given)], out)


def test_links_between_folders_of_originals_and_cloaks_are_refused(archive, tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (archive / "a" / "linked").symlink_to(out / "sub")
    with pytest.raises(ValueError, match="leads into --out"):
        scan([str(archive)], out)
    (archive / "a" / "linked").unlink()
    (out / "b").symlink_to(archive / "b")
    with pytest.raises(ValueError, match="where originals lie"):
        scan([str(archive)], out)
    (out / "b").unlink()
    assert len(scan([str(archive)], out).sources) == 4


def test_a_target_is_known_for_an_original_through_links(archive, tmp_path):
    (tmp_path / "alias").symlink_to(archive / "a")
    (archive / "a" / "same.jpg").symlink_to(archive / "b" / "1.jpg")
    originals = Originals(scan([str(archive / "a")], tmp_path / "out").sources)
    for name in ("photos/a/1.jpg", "alias/1.jpg", "photos/b/1.jpg", "alias/same.jpg"):
        assert tmp_path / name in originals, name
    assert tmp_path / "photos" / "a" / "new.jpg" not in originals
    assert tmp_path / "out" / "1.jpg" not in originals


def test_a_folder_and_a_shard_of_one_name_are_refused(archive, tmp_path):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"x")])
    with pytest.raises(ValueError, match=r"both be written as a/1\.jpg"):
        scan([str(archive / "a"), str(tmp_path / "a.tar")], tmp_path / "out")


def test_nothing_to_do_is_an_error(archive, tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        scan([str(archive / "missing")], tmp_path / "out")
    with pytest.raises(ValueError, match="nothing matches"):
        scan([str(archive / "*.gif")], tmp_path / "out")
    with pytest.raises(ValueError, match="no photos found"):
        scan([str(archive / "b" / "notes.txt")], tmp_path / "out")
    with pytest.raises(ValueError, match="no photos given"):
        scan([], tmp_path / "out")


def test_links(archive, tmp_path):
    (archive / "loop").symlink_to(archive)
    (archive / "self.jpg").symlink_to(archive / "self.jpg")
    (archive / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    (archive / "good.jpg").symlink_to(archive / "a" / "1.jpg")
    found = scan([str(archive)], tmp_path / "out")
    assert [key for key, _ in found.broken] == ["dead.jpg", "loop", "self.jpg"]
    reasons = dict(found.broken)
    assert "broken" in reasons["dead.jpg"]
    assert "back to itself" in reasons["loop"] and "back to itself" in reasons["self.jpg"]
    assert "good.jpg" in [s.key for s in found.sources] and len(found.sources) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_closed_folder_is_reported(archive, tmp_path):
    (archive / "b").chmod(0)
    try:
        found = scan([str(archive)], tmp_path / "out")
    finally:
        (archive / "b").chmod(0o755)
    assert found.broken[0][0] == "b" and "not readable" in found.broken[0][1]
