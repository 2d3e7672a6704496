"""Files of models: every byte of small ones counts, of large ones both ends and the size."""

import os
import shutil
from pathlib import Path

import pytest

from anti_i2v_lit.checkpoints import packaged_folder
from anti_i2v_lit.evaluation import model_files
from anti_i2v_lit.evaluation.model_files import (
    are_comparable,
    content_digest,
    rows_digest,
    share_weights,
)


def test_a_changed_middle_is_another_model(tmp_path: Path) -> None:
    copy = shutil.copytree(packaged_folder("cogvideox"), tmp_path / "copy")
    before = rows_digest("cogvideox", str(copy))
    assert before == rows_digest("cogvideox", "embedded") != ""
    file = max(copy.rglob("*.safetensors"), key=lambda f: f.stat().st_size)
    size = file.stat().st_size
    assert size > 2 << 20, "the middle is not a part of either end"
    with file.open("r+b") as stream:
        stream.seek(size // 2)
        byte = stream.read(1)
        stream.seek(size // 2)
        stream.write(bytes([byte[0] ^ 1]))
    assert rows_digest("cogvideox", str(copy)) != before


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".safetensors"])
def test_weights_of_every_format_count(suffix: str, tmp_path: Path) -> None:
    assert rows_digest("svd", str(tmp_path)) == ""
    (tmp_path / "config.json").write_text("{}")
    assert rows_digest("svd", str(tmp_path)) == "" == rows_digest("svd", "")
    file = tmp_path / f"model{suffix}"
    file.write_bytes(b"one")
    first = rows_digest("svd", str(tmp_path))
    file.write_bytes(b"other")
    second = rows_digest("svd", str(tmp_path))
    (tmp_path / "config.json").write_text("{ }")
    assert len({"", first, second, rows_digest("svd", str(tmp_path))}) == 4


def test_large_files_count_with_ends_and_size_wherever_they_were_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "WHOLE_BYTES", 8)
    monkeypatch.setattr(model_files, "_EDGE_BYTES", 2)
    file = tmp_path / "model.bin"
    file.write_bytes(b"ab------cd")
    os.utime(file, ns=(0, 1_000))
    first, content = rows_digest("svd", str(tmp_path)), content_digest(file)
    file.write_bytes(b"ab--__--cd")
    os.utime(file, ns=(0, 2_000))
    assert rows_digest("svd", str(tmp_path)) == first, "a copy on another node is the same model"
    assert content_digest(file) == content, "in doubt the same"
    for other in (b"xb------cd", b"ab------cx", b"ab-------cd"):
        file.write_bytes(other)
        assert content_digest(file) != content and rows_digest("svd", str(tmp_path)) != first


def test_models_share_weights_or_do_not_or_nobody_can_tell(tmp_path: Path) -> None:
    def made(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    first, same = made("a.safetensors", b"1234"), made("b.pt", b"1234")
    other = made("c.safetensors", b"5678")
    assert share_weights([first, other], [same]), "the same bytes under another suffix"
    assert not share_weights([first], [other]) and not share_weights([], [same])
    assert are_comparable([first], [other]) and are_comparable([first, same], [other])
    assert not are_comparable([other], [same]) and not are_comparable([], [same])
