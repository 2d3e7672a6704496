"""Shards in, shards out: the bytes of a folder run, however the shards are read and by whom."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import webdataset
import yaml

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.status import status
from anti_i2v_lit.archive.verify import verify
from anti_i2v_lit.cli.main import main
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.planning import plan
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings, load_settings
from tests.conftest import fast_values
from tests.data.shards.making import header, photo_bytes, samples, unpack, write


@pytest.fixture
def settings(tiny_checkpoint: Path) -> Settings:
    words = ["attack.steps=2", "attack.num_draws=1", "attack.checkpoint_every=1"]
    return load_settings(values=fast_values(tiny_checkpoint), overrides=words)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards, p-000000 with three samples and p-000001 with two."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "p-000000.tar", samples(3))
    write(folder / "p-000001.tar", samples(2, start=3))
    return folder


def outputs(out: Path) -> dict[str, str]:
    """Key -> digest of the cloak, from the rows and from the bytes alike."""
    found = {}
    for key, row in Ledger(out).rows().items():
        if row.status == "cloaked":
            tar, _, member = row.output.partition("/")
            data = unpack(out / tar)[member] if tar.endswith(".tar") else \
                (out / row.output).read_bytes()  # fmt: skip
            assert hashlib.sha256(data).hexdigest() == row.output_sha256
            found[key] = row.output_sha256
    return found


def test_shards_give_the_bytes_of_files_and_come_back_as_shards(
    shards: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The same photos as files, in folders named as the shards.
    for path in shards.glob("*.tar"):
        folder = tmp_path / "photos" / path.stem
        folder.mkdir(parents=True)
        for name, data in unpack(path).items():
            (folder / name).write_bytes(data)
    assert cloak(settings, photos=["photos"], out=tmp_path / "files") == 0
    spec = "shards/p-{000000..000001}.tar"
    found = plan(settings, photos=[spec], out=tmp_path / "out", trial_steps=0, free_bytes=None)
    assert found.remaining == 5 and found.formats == {"PNG": 4, "JPEG": 1}
    out = tmp_path / "out"
    assert cloak(settings, photos=[spec], out=out) == 0
    assert outputs(out) == outputs(tmp_path / "files")
    assert len(outputs(out)) == 5
    assert sorted(p.name for p in out.glob("*.tar")) == ["p-000000.tar", "p-000001.tar"]
    assert verify(out) == []
    assert "shards     2 written, 0 begun" in status(out).render()
    assert not list((out / ".anti_i2v" / "shards").glob("*/*"))
    # webdataset reads the result: same keys, photo, row and caption.
    dataset = webdataset.WebDataset(str(out / "p-000000.tar"), shardshuffle=False)
    rows = Ledger(out).rows()
    for number, sample in enumerate(dataset):
        assert sample["__key__"] == f"{number:06d}"
        assert sample["txt"] == f"caption {number}".encode()
        row = json.loads(sample["json"])
        assert row["status"] == "cloaked"
        assert row["output_sha256"] == rows[row["key"]].output_sha256
        assert row["source"] == f"shards/p-000000.tar/{row['key'].partition('/')[2]}"
    # Again: nothing is done, nothing is written.
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".tar", ".jsonl")}
    monkeypatch.setattr(CloakModule, "_new_job", None)
    assert cloak(settings, photos=[spec], out=out) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_photos_written_as_png_make_shards_that_are_read_again(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    photos = [(f"{n}.jpg", photo_bytes(n, "JPEG")) for n in range(2)]
    write(tmp_path / "p.tar", photos).chmod(0o600)
    words = ["attack.steps=1", "attack.num_draws=1", "output.format=png"]
    settings = load_settings(values=fast_values(tiny_checkpoint), overrides=words)
    assert cloak(settings, photos=[str(tmp_path / "p.tar")], out=tmp_path / "out") == 0
    found = scan([str(tmp_path / "out" / "p.tar")], tmp_path / "again")
    assert [s.key for s in found.sources] == ["p/0.png", "p/1.png"] and not found.broken
    rows = Ledger(tmp_path / "out").rows()
    assert [rows[f"p/{n}.jpg"].output for n in range(2)] == ["p.tar/0.png", "p.tar/1.png"]
    assert verify(tmp_path / "out") == []
    assert (tmp_path / "out" / "p.tar").stat().st_mode & 0o777 == 0o600


def test_a_folder_is_complete_when_all_parts_have_run(
    shards: Path, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "cloak.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(settings.plain()), encoding="utf-8")
    words = ["cloak", f"{shards}/*.tar", "--out", str(out), "--config", str(config)]
    require = ["status", str(out), "--require", "complete"]
    assert main([*words, "--part", "1/2"]) == 0
    assert main(require) == 2
    assert "2 of at least 2: 2 cloaked" in capsys.readouterr().out
    assert main([*words, "--part", "0/2"]) == 0
    assert main(require) == 0


def test_pipes_order_and_files_out_change_no_byte(
    shards: Path, tmp_path: Path, settings: Settings
) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert cloak(settings, photos=[f"{shards}/p-*.tar"], out=plain) == 0
    # The samples the other way round, through a pipe; the cloaks as files.
    members = samples(3)
    pairs = [members[i : i + 2] for i in (4, 2, 0)]
    reversed_tar = write(tmp_path / "p-000000.tar", [m for pair in pairs for m in pair])
    words = [f"pipe:cat '{reversed_tar}'", str(shards / "p-000001.tar")]
    assert cloak(settings, photos=words, out=other, out_format="folder") == 0
    assert outputs(other) == outputs(plain)
    assert sorted(p.name for p in other.glob("p-*")) == ["p-000000", "p-000001"]
    assert verify(other) == []
    # A finished run through a pipe does nothing more.
    assert cloak(settings, photos=words, out=other, out_format="folder") == 0


class Stopped(RuntimeError):
    """A run that ends here, as if killed."""


def test_a_killed_run_goes_on_in_the_middle_of_a_shard(
    shards: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = str(shards / "p-000000.tar")
    assert cloak(settings, photos=[word], out=tmp_path / "calm") == 0
    out, entered = tmp_path / "out", []
    original = CloakModule._new_job

    def dies(self: CloakModule, key: str, loaded: object) -> object:
        entered.append(key)
        if len(entered) == 2:
            raise Stopped
        return original(self, key, loaded)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(CloakModule, "_new_job", dies)
        cloak(settings, photos=[word], out=out)
    assert not (out / "p-000000.tar").exists(), "a shard is there only when it is whole"
    assert (out / ".anti_i2v" / "shards" / "p-000000" / "000000.png").is_file()
    assert "shards     0 written, 1 begun" in status(out).render()
    assert verify(out) == [], "a waiting cloak is checked as any other"
    entered.clear()
    entered.append("counted from here")
    entered.append("")
    with monkeypatch.context() as patch:
        patch.setattr(CloakModule, "_new_job", dies)
        assert cloak(settings, photos=[word], out=out) == 0
    assert entered[2:] == ["p-000000/000001.png", "p-000000/000002.jpg"]
    assert (out / "p-000000.tar").read_bytes() == (tmp_path / "calm" / "p-000000.tar").read_bytes()


def test_a_kill_between_the_last_row_and_the_tar(
    shards: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, out = str(shards / "p-000001.tar"), tmp_path / "out"

    def stop(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("anti_i2v_lit.lit.shards.write_tar", stop)
        cloak(settings, photos=[word], out=out)
    assert len(Ledger(out).rows()) == 2 and not list(out.glob("*.tar"))
    assert cloak(settings, photos=[word], out=out) == 0
    assert len(unpack(out / "p-000001.tar")) == 6
    # A cloak that is lost from its shard is made again, and the others stay.
    before = outputs(out)
    members = [m for m in unpack(out / "p-000001.tar").items() if m[0] != "000003.png"]
    write(out / "p-000001.tar", list(members))
    assert [f.kind for f in verify(out)] == ["missing"]
    assert cloak(settings, photos=[word], out=out) == 0
    assert outputs(out) == before and verify(out) == []


def test_bad_members_cost_their_samples_and_nothing_is_written_outside(
    tmp_path: Path, settings: Settings
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bad = [
        ("../escaped.png", photo_bytes(7)),
        (str(tmp_path / "absolute.png"), photo_bytes(8)),
        header("link.png", tarfile.SYMTYPE, str(tmp_path / "in")),
        ("only.txt", b"no photo"),
        ("empty.png", b""),
    ]
    whole = write(folder / "whole.tar", [*bad, *samples(2)]).read_bytes()
    (folder / "whole.tar").unlink()
    (folder / "p.tar").write_bytes(whole[: whole.rindex(b"caption 1") - 600])
    before = {p for p in tmp_path.rglob("*")}
    out = tmp_path / "out"
    assert cloak(settings, photos=[str(folder / "p.tar")], out=out) == 2
    new = {p for p in tmp_path.rglob("*") if out not in (p, *p.parents)} - before
    assert new == set()
    rows = Ledger(out).rows()
    assert [k for k, r in rows.items() if r.status == "cloaked"] == ["p/000000.png"]
    reasons = {k: r.reason for k, r in rows.items() if r.status != "cloaked"}
    assert len(reasons) == 7
    assert "zero bytes" in reasons["p/empty.png"]
    assert "damaged" in reasons["p/000001.png"]
    assert "samples that may follow are lost" in reasons["p/[rest of the shard]"]
    made = unpack(out / "p.tar")
    assert {n for n in made if not n.endswith(".json")} == {"000000.png", "000000.txt"}
    assert json.loads(made["empty.json"])["status"] == "failed"
    assert verify(out) == []
    # The shard is delivered once more, whole now: what was missing is added.
    (folder / "p.tar").write_bytes(whole)
    assert cloak(settings, photos=[str(folder / "p.tar")], out=out) == 2
    assert {n for n in unpack(out / "p.tar") if n.endswith(".png")} == {"000000.png", "000001.png"}
    assert verify(out) == []


def test_captions_are_the_prompts_where_asked_for(
    shards: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anti_i2v_lit.surrogates.base import Surrogate

    seen: set[str] = set()
    original = Surrogate.draw

    def draw(self: Surrogate, *arguments: object, **named: object) -> object:
        found = original(self, *arguments, **named)  # type: ignore[arg-type]
        seen.update(found.prompts)
        return found

    monkeypatch.setattr(Surrogate, "draw", draw)
    plain = settings.plain()
    plain["attack"]["prompt"] = "close-up: {caption}"
    own = load_settings(values=plain)
    assert cloak(own, photos=[str(shards / "p-000001.tar")], out=tmp_path / "out") == 0
    assert seen == {"close-up: caption 3", "close-up: caption 4"}


def test_verify_finds_strangers_and_changes_in_shards(
    shards: Path, tmp_path: Path, settings: Settings
) -> None:
    word, out = str(shards / "p-000001.tar"), tmp_path / "out"
    assert cloak(settings, photos=[word], out=out) == 0
    members = unpack(out / "p-000001.tar")
    original = unpack(shards / "p-000001.tar")
    members["000003.png"] = original["000003.png"]
    members["stranger.png"] = photo_bytes(9)
    write(out / "p-000001.tar", list(members.items()))
    assert sorted((f.kind, f.key) for f in verify(out)) == [
        ("changed", "p-000001/000003.png"),
        ("original", "p-000001/000003.png"),
        ("unlisted", "p-000001.tar/stranger.png"),
    ]


def test_wrong_words_are_refused(shards: Path, tmp_path: Path, settings: Settings) -> None:
    twin = tmp_path / "twin" / "p-000000.tar"
    twin.parent.mkdir()
    shutil.copy(shards / "p-000000.tar", twin)
    one = str(shards / "p-000000.tar")
    with pytest.raises(ValueError, match=re.escape("both be written as p-000000.tar")):
        cloak(settings, photos=[one, str(twin)], out=tmp_path / "out")
    with pytest.raises(ValueError, match="could be overwritten"):
        cloak(settings, photos=[one], out=shards)
    with pytest.raises(ValueError, match="no such shard"):
        cloak(settings, photos=[str(shards / "p-{000000..000002}.tar")], out=tmp_path / "out")
    assert main(["cloak", one, "--out", str(tmp_path / "out"), "--out-format", "zip"]) == 1
