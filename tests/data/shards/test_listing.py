"""Which samples a tar holds: good ones, and bad ones each with its reason and nothing else lost."""

from __future__ import annotations

import gzip
import itertools
import tarfile
from pathlib import Path

import pytest
import webdataset

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs import PHOTO_SUFFIXES
from anti_i2v_lit.data.shards import listing as listing_module
from anti_i2v_lit.data.shards.listing import ShardListing, list_shard
from anti_i2v_lit.data.shards.reading import (
    ForwardReader,
    expand_shards,
    is_shard,
    open_shard,
    shard_name,
)
from tests.data.shards.making import header, photo_bytes, samples, unpack, write

SUFFIXES = PHOTO_SUFFIXES | {".gif"}
PNG = photo_bytes(0)


def listed(url: Path | str) -> ShardListing:
    return list_shard(open_shard(str(url), ForwardReader()), SUFFIXES)


def test_the_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    extra = [
        ("000003.png", PNG),
        ("000003.json", b'{"caption": " from json "}'),
        ("000003.cls", b"1"),
    ]
    path = write(tmp_path / "p-000000.tar", [*samples(3), *extra, ("README", b"no sample")])
    theirs = {
        s["__key__"]: (s.get("png") or s["jpg"], s.get("txt", b"from json").decode())
        for s in webdataset.WebDataset(str(path), shardshuffle=False)
    }
    found = listed(path)
    ours = {key: sample.load() for key, sample in found.samples.items()}
    assert list(ours) == [f"p-000000/{n}" for n in
                          ("000000.png", "000001.png", "000002.jpg", "000003.png")]  # fmt: skip
    assert list(ours.values()) == list(theirs.values())
    assert found.broken == {}


@pytest.mark.parametrize("kind", ["pipe", "gz", "url"])
def test_streams_give_the_same_samples(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "p-000000.tar", samples(4))
    expected = {key: s.load() for key, s in listed(path).samples.items()}
    if kind == "gz":
        url = f"{path}.gz"
        Path(url).write_bytes(gzip.compress(path.read_bytes()))
    else:
        url = f"pipe:cat '{path}'" if kind == "pipe" else f"file://{path}"
    found = listed(url)
    assert {key: s.load() for key, s in found.samples.items()} == expected
    # Backwards as well: the stream is opened again.
    for key, sample in reversed(found.samples.items()):
        assert sample.load() == expected[key]


BAD = {
    "twice": ([("b.png", PNG), ("b.png", PNG)], "b.png is in the shard twice"),
    "again later": (
        [("b.png", PNG), *samples(1), ("b.txt", b"x")], "sample b is in the shard twice"
    ),
    "no photo": ([("b.txt", b"x"), ("b.json", b"{}")], "no photo in the sample, only json, txt"),
    "two photos": ([("b.png", PNG), ("b.jpg", PNG)], "several photos in one sample: b.png, b.jpg"),
    "link": ([header("b.png", tarfile.SYMTYPE, "/etc/passwd")], "a link or a special file"),
    "hard link": ([header("b.png", tarfile.LNKTYPE, "a.png")], "a link or a special file"),
    "device": ([header("b.png", tarfile.CHRTYPE)], "a link or a special file"),
    "absolute": ([("/b.png", PNG)], "'/b.png', a name that leaves its folder"),
    "climbs": ([("../b.png", PNG)], "'../b.png', a name that leaves its folder"),
    "climbs inside": ([("a/../../b.png", PNG)], "a name that leaves its folder"),
    "backslash": ([("..\\b.png", PNG)], "a name that leaves its folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sample_costs_itself(tmp_path: Path, name: str) -> None:
    members, reason = BAD[name]
    found = listed(
        write(tmp_path / "p.tar", [*samples(2, start=5), *members, *samples(2, start=7)])
    )
    good = [key for key in found.samples if "00000" in key and "000000" not in key]
    assert len(good) == 4
    assert len(found.broken) == 1
    ((key, why),) = found.broken.items()
    assert reason in why
    assert ".." not in key.split("/") and key.startswith("p/")


def test_a_member_too_large_costs_its_sample_and_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MAX_PHOTO_BYTES", 10_000)
    path = write(
        tmp_path / "p.tar", [*samples(1), ("big.png", bytes(20_000)), *samples(1, start=1)]
    )
    found = listed(path)
    assert len(found.samples) == 2
    assert found.broken == {"p/big.png": "big.png has 20000 bytes, over the limit of 10000"}


def test_a_claimed_terabyte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tar", samples(1))
    # Only the header claims it: the member after it is gone, what came before is not.
    whole = path.read_bytes()
    claim = header("huge.png", tarfile.REGTYPE, size=2**40).tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(whole[: whole.rindex(b"caption 0") + 512] + claim + bytes(1024))
    found = listed(path)
    assert list(found.samples) == ["p/000000.png"]
    assert "damaged at this sample: unexpected end of data" in found.broken["p/huge.png"]


def test_every_cut_keeps_what_came_before_and_says_so(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.tar", samples(3)).read_bytes()
    end = whole.rindex(b"caption 2") + 512
    path = tmp_path / "p.tar"
    intact = {f"p/{name}": data for name, data in unpack(tmp_path / "whole.tar").items()}
    for cut in itertools.chain(range(0, end, 997), [512, 1024, end - 512, end]):
        path.write_bytes(whole[:cut])
        for url in (str(path), f"pipe:cat '{path}'"):
            found = listed(url)
            assert "p/[rest of the shard]" in found.broken, (cut, url)
            for key, sample in found.samples.items():
                assert sample.load()[0] == intact[key], (cut, url)
    path.write_bytes(whole[: end + 512])
    assert listed(path).broken == {}


def test_a_flipped_header_ends_the_shard_with_its_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tar", samples(3))
    data = bytearray(path.read_bytes())
    position = data.index(b"000001.txt")
    data[position] ^= 0xFF
    path.write_bytes(data)
    found = listed(path)
    assert list(found.samples) == ["p/000000.png"]
    assert "damaged at this sample" in found.broken["p/000001.png"]
    assert "samples that may follow are lost" in found.broken["p/[rest of the shard]"]


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tar", samples(1))
    whole = path.read_bytes()
    bomb = header("x", tarfile.GNUTYPE_LONGNAME, size=2**33).tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(whole[: whole.rindex(b"caption 0") + 512] + bomb + bytes(4096))
    assert "header of 8589934592 bytes" in listed(path).broken["p/[rest of the shard]"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_one_failure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.tar").write_bytes(content)
    found = listed(tmp_path / "p.tar")
    assert list(found.broken) == ["p/[rest of the shard]"] and not found.samples


def test_a_pipe_that_fails_is_one_failure() -> None:
    assert list(listed("pipe:exit 3 # p.tar").broken) == ["p/[rest of the shard]"]


def test_a_shard_that_changes_during_the_run_fails_its_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tar", samples(2))
    found = [*listed(path).samples.values(), *listed(f"pipe:cat '{path}'").samples.values()]
    write(path, [("other.png", PNG), *samples(2)])
    for sample in found:
        with pytest.raises(PhotoFailure, match="changed during the run|when it was listed"):
            sample.load()


def test_a_caption_that_is_no_text_fails_its_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tar", [("a.png", PNG), ("a.txt", b"\xff\xfe\xff")])
    with pytest.raises(PhotoFailure, match=r"a\.txt in the shard cannot be read"):
        listed(path).samples["p/a.png"].load()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("shards/portraits-000003.tar", "portraits-000003"),
        ("pipe:aws s3 cp s3://bucket/a.tar - | tee b-1.tar", "b-1"),
        ("https://host/data/p-01.tar?token=x.y", "p-01"),
        ("x.tar.gz", "x"),
        ("x.tgz", "x"),
    ],
)
def test_names_of_shards(url: str, name: str) -> None:
    assert is_shard(url)
    assert shard_name(url) == name


def test_a_pipe_without_a_name_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name ending in .tar"):
        shard_name("pipe:generate | encode")
    with pytest.raises(ValueError, match="no such shard"):
        open_shard(str(tmp_path / "none.tar"), ForwardReader())
    with pytest.raises(ValueError, match="missing environment variable"):
        expand_shards("${NO_SUCH_VARIABLE}/x.tar")
    assert expand_shards("a/p-{000008..000010}.tar") == [f"a/p-{n:06d}.tar" for n in (8, 9, 10)]
