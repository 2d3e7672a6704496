import os
import shutil

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from anti_i2v_lit.archive.files import sha256_of
from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.archive.verify import verify

pillow_heif.register_heif_opener()


def picture(seed, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def run(tmp_path):
    """Three photos cloaked honestly, in three formats and a subfolder."""
    originals, out = tmp_path / "in", tmp_path / "out"
    for folder in (originals / "sub", out / "sub"):
        folder.mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.png", "sub/c.heic")):
        picture(number).save(originals / name)
        picture(number + 100).save(out / name)
        record(out, name, originals / name)
    Ledger(out).append(Row(key="bad.gif", status="refused", reason="animated"))
    return originals, out


def record(out, name, source, **changes):
    values = dict(
        key=name, status="cloaked", source=str(source), source_sha256=sha256_of(source),
        output=name, output_sha256=sha256_of(out / name), max_change_8bit=16,
    )  # fmt: skip
    Ledger(out).append(Row(**{**values, **changes}))


def kinds(out):
    return {(f.key, f.kind) for f in verify(out)}


def test_an_honest_folder_has_no_findings(run):
    seen = []
    assert verify(run[1], on_photo=lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_photos_over_the_limit_of_pillow_are_looked_at_like_others(run, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert verify(run[1]) == []
    assert Image.MAX_IMAGE_PIXELS == 100


def test_originals_that_are_gone_are_no_finding(run):
    shutil.rmtree(run[0])
    assert verify(run[1]) == []


def test_a_missing_output_is_found(run):
    (run[1] / "b.png").unlink()
    assert kinds(run[1]) == {("b.png", "missing")}


def test_one_flipped_bit_is_found(run):
    path = run[1] / "sub/c.heic"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert kinds(run[1]) == {("sub/c.heic", "changed")}


def test_the_original_in_place_of_the_cloak_is_found(run):
    shutil.copy(run[0] / "a.jpg", run[1] / "a.jpg")
    assert kinds(run[1]) == {("a.jpg", "changed"), ("a.jpg", "original")}


def test_two_cloaks_exchanged_are_found(run):
    os.replace(run[1] / "a.jpg", run[1] / "t")
    os.replace(run[1] / "b.png", run[1] / "a.jpg")
    os.replace(run[1] / "t", run[1] / "b.png")
    assert {("a.jpg", "changed"), ("b.png", "changed")} <= kinds(run[1])


def test_a_changed_original_is_found(run):
    picture(9).save(run[0] / "a.jpg")
    assert kinds(run[1]) == {("a.jpg", "source changed")}


def test_another_size_and_another_format_are_found(run):
    originals, out = run
    picture(1).save(originals / "d.png")
    picture(2, size=(30, 40)).save(out / "d.png", format="JPEG")
    record(out, "d.png", originals / "d.png")
    assert kinds(out) == {("d.png", "size"), ("d.png", "format")}


def test_an_orientation_tag_counts_as_displayed(run):
    originals, out = run
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).save(originals / "e.jpg", exif=exif)
    picture(2, size=(30, 40)).save(out / "e.jpg")
    record(out, "e.jpg", originals / "e.jpg")
    assert verify(out) == []
    picture(3).save(originals / "f.jpg", exif=exif)
    picture(4).save(out / "f.jpg")
    record(out, "f.jpg", originals / "f.jpg")
    assert kinds(out) == {("f.jpg", "size")}


def test_sixteen_bit_tiffs_are_compared(run):
    originals, out = run
    rng = np.random.default_rng(0)
    for name, shape in (("g.tif", (20, 30, 3)), ("h.tif", (20, 31, 3))):
        tifffile.imwrite(originals / name, rng.integers(0, 65535, (20, 30, 3), dtype=np.uint16))
        tifffile.imwrite(out / name, rng.integers(0, 65535, shape, dtype=np.uint16))
        record(out, name, originals / name)
    assert kinds(out) == {("h.tif", "size")}


def test_rubbish_a_cloak_without_change_and_a_shared_output_are_found(run):
    originals, out = run
    picture(1).save(originals / "i.jpg")
    (out / "i.jpg").write_bytes(b"not a photo")
    record(out, "i.jpg", originals / "i.jpg", max_change_8bit=0)
    record(out, "b.png", originals / "b.png", key="twin", output="b.png")
    assert kinds(out) == {
        ("i.jpg", "unreadable"), ("i.jpg", "unchanged"), ("twin", "shared output")
    }  # fmt: skip


def test_a_photo_that_no_row_knows_is_found(run):
    picture(7).save(run[1] / "sub" / "holiday.JPG", format="JPEG")
    (run[1] / "report.html").write_text("x")
    (run[1] / ".anti_i2v").mkdir()
    picture(8).save(run[1] / ".anti_i2v" / "hidden.png")
    assert kinds(run[1]) == {("sub/holiday.JPG", "unlisted")}


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        verify(tmp_path / "nowhere")
