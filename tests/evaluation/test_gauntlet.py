"""Entries of an evaluation: the size at which networks purify, and the weights in identities."""

import hashlib
import shutil
from pathlib import Path

import pytest

from anti_i2v_lit.checkpoints import files_digest
from anti_i2v_lit.evaluation.gauntlet import Entry, entries
from anti_i2v_lit.evaluation.purifier_files import WEIGHTS, weights_digest

REMOVER = WEIGHTS / "remover" / "remover.safetensors"


def entry(**config: object) -> Entry:
    (found,) = entries([config])
    return found


@pytest.mark.parametrize("name", ["remover", "vae"])
def test_networks_purify_at_the_generators_view_unless_told_otherwise(name: str) -> None:
    free, fixed = entry(name=name), entry(name=name, work_px=64)
    assert free.build(96).config.work_px == 96
    assert fixed.build(96).config.work_px == 64
    assert "view" in free.facts().settings["work_px"]
    assert fixed.facts().settings["work_px"] == 64


def test_networks_of_a_gauntlet_follow_the_view_and_the_others_have_no_size() -> None:
    following = {found.label for found in entries("audit") if found.follows_view}
    assert {"VAE of unet_128", "noisy upscaling", "DiffPure t*=100"} <= following
    assert not following & {"none", "greyscale", "face crop"}


def test_weights_are_in_the_identity(tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(REMOVER, mine)
    before = entry(name="remover", path=str(mine)).identity
    mine.write_bytes(mine.read_bytes() + b" ")
    assert entry(name="remover", path=str(mine)).identity != before
    assert entry(name="jpeg").identity[1] == "" == weights_digest(None)


@pytest.mark.parametrize("name", ["diffpure", "gridpure", "noisy_upscaling", "remover", "vae"])
def test_packaged_weights_have_a_digest(name: str) -> None:
    assert len(weights_digest({"name": name})) == hashlib.sha256().digest_size * 2


def test_a_digest_is_that_of_names_and_all_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "a.safetensors").write_bytes(b"one")
    (folder / "README.md").write_text("no weights")
    content = hashlib.sha256(b"one").hexdigest()
    expected = hashlib.sha256(f"a.safetensors {content}\n".encode()).hexdigest()
    assert weights_digest({"name": "vae", "model": str(folder)}) == expected
    assert files_digest([folder / "vae" / "a.safetensors"]) == expected


def test_weights_that_differ_in_the_middle_only_are_other_weights(tmp_path: Path) -> None:
    file, digests = tmp_path / "mine.safetensors", []
    for middle in (b"a", b"b"):
        file.write_bytes(bytes(1 << 21) + middle + bytes(1 << 21))
        digests.append(weights_digest({"name": "remover", "path": str(file)}))
    assert digests[0] != digests[1]
