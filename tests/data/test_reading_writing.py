"""Refusals with reasons, limits before decoding, and files that are whole or absent."""

import hashlib
import multiprocessing
import os
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data import reading, writing
from anti_i2v_lit.data.codecs.png import assembled
from anti_i2v_lit.data.folder import SourceFile, scan
from anti_i2v_lit.data.memory import available_memory_bytes
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.data.shards.listing import list_shard
from anti_i2v_lit.data.shards.reading import ForwardReader, open_shard
from anti_i2v_lit.data.writing import (
    OutputConfig,
    member_name,
    output_names,
    remove_partials,
    write_photo,
)
from anti_i2v_lit.tars import write_tar

ODD_COUNT = 60


@pytest.fixture
def odd() -> Path:
    root = Path(os.environ.get("ANTI_I2V_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / "odd").is_dir():
        pytest.skip("no odd photos: set ANTI_I2V_DATA to a folder of test data")
    return root / "odd"


def test_every_odd_file_is_written_or_refused_with_a_reason(odd, tmp_path):
    found = scan([str(odd)], tmp_path)
    refused, written = {}, set()
    for source in found.sources:
        try:
            photo = read_photo(source, ReadingConfig())
            assert all(side >= 1 for side in photo.size)
            cloak = photo.changed(torch.full((3, *photo.size), 4 / 255), 16)
            digest = write_photo(cloak, tmp_path / source.key, OutputConfig())
        except PhotoFailure as failure:
            refused[source.key] = str(failure)
            continue
        data = (tmp_path / source.key).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        again = read_photo(SourceFile(key=source.key, path=tmp_path / source.key), ReadingConfig())
        assert (again.size, again.format, again.bit_depth) == (
            photo.size,
            photo.format,
            photo.bit_depth,
        )
        assert again.picture.icc == photo.picture.icc
        assert again.picture.exif == photo.picture.exif
        written.add(source.key)
    assert len(written) + len(refused) == len(found.sources) == ODD_COUNT
    assert all(len(reason) > 15 for reason in refused.values())
    for name, reason in {
        "heif/empty.heic": "zero bytes",
        "pillow/truncated_jpeg.jpg": "truncated",
        "pillow/truncated_image.png": "truncated",
        "pillow/broken_data_stream.png": "damaged",
        "pillow/hopper.Lab.tif": "Lab",
        "pillow/tiff_16bit_RGBa.tiff": "associated alpha",
        "pillow/decompression_bomb.gif": "GIF",
        "pillow/hopper.psd": "PSD",
    }.items():
        assert reason in refused[name], refused[name]
    assert {"pillow/hopper_bad_exif.jpg", "pillow/jpeg_ff00_header.jpg"} <= written
    assert {f"pillow/hopper_orientation_{i}.jpg" for i in range(2, 9)} <= written


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_file_cut_anywhere_is_refused_or_whole(name, tmp_path, pixels, read):
    suffix = {"HEIF": ".heic"}.get(name, f".{name.lower()}")
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(pixels).save(whole, name)
    data = whole.read_bytes()
    expected = read(whole).picture.samples
    for length in np.linspace(1, len(data) - 1, 25).astype(int):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(data[:length])
        try:
            samples = read(cut).picture.samples
        except PhotoFailure:
            continue
        assert np.array_equal(samples, expected)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_random_damage_never_raises_anything_else(name, tmp_path, pixels, read):
    suffix = {"HEIF": ".heic"}.get(name, f".{name.lower()}")
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(pixels).save(path, name)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(data)
        for position in rng.integers(12, min(len(data), 700), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path, max_megapixels=1)
        except PhotoFailure as failure:
            assert str(failure)


def test_wrong_suffix_says_what_it_is(tmp_path, pixels, read):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", "PNG")
    with pytest.raises(PhotoFailure, match=r"content is PNG; rename the file to \.png"):
        read(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes(b"%PDF-1.4")
    with pytest.raises(PhotoFailure, match="content is PDF; export"):
        read(tmp_path / "b.png")
    Image.fromarray(pixels).save(tmp_path / "c.nef", "TIFF")
    with pytest.raises(PhotoFailure, match="NEF files are not handled"):
        read(tmp_path / "c.nef")
    (tmp_path / "d.jpg").write_bytes(b"hello")
    with pytest.raises(PhotoFailure, match="not a picture"):
        read(tmp_path / "d.jpg")
    Image.fromarray(pixels).save(tmp_path / "E.JPG", "JPEG")
    assert read(tmp_path / "E.JPG").format == "JPEG"


@pytest.mark.parametrize(
    ("mode", "name", "reason"),
    [
        ("CMYK", "JPEG", "CMYK"),
        ("CMYK", "TIFF", "CMYK"),
        ("P", "PNG", "palette"),
        ("P", "TIFF", "palette"),
        ("1", "PNG", "black-and-white"),
        ("F", "TIFF", "not handled"),
        ("LAB", "TIFF", "Lab"),
    ],
)
def test_kinds_that_are_refused(mode, name, reason, tmp_path, pixels, read):
    path = tmp_path / f"photo.{name.lower()}"
    if mode == "LAB":
        Image.frombytes("LAB", pixels.shape[1::-1], pixels.tobytes()).save(path, name)
    else:
        Image.fromarray(pixels).convert(mode).save(path, name)
    with pytest.raises(PhotoFailure, match=reason):
        read(path)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "AVIF"])
def test_animations_are_refused(name, tmp_path, pixels, read):
    path = tmp_path / f"moving.{name.lower()}"
    second = Image.fromarray(pixels[::-1].copy())
    Image.fromarray(pixels).save(path, name, save_all=True, append_images=[second], duration=100)
    with pytest.raises(PhotoFailure, match="only still photos"):
        read(path)


def test_tiffs_that_would_keep_an_uncloaked_copy_are_refused(tmp_path, pixels, read):
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        writer.write(pixels, photometric="rgb")
        writer.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    with pytest.raises(PhotoFailure, match="2 pages"):
        read(tmp_path / "pages.tif")
    layers = [(37724, 7, 30, b"Adobe Photoshop Document Data\0", True)]
    tifffile.imwrite(tmp_path / "layers.tif", pixels, photometric="rgb", extratags=layers)
    with pytest.raises(PhotoFailure, match="layers"):
        read(tmp_path / "layers.tif")


def bomb(folder: Path) -> Path:
    """A 600-byte PNG that says 60000 x 60000."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100000)), (b"IEND", b"")]
    (folder / "bomb.png").write_bytes(assembled(parts))
    return folder / "bomb.png"


def test_too_large_photos_are_refused_before_they_are_decoded(tmp_path, pixels, read, monkeypatch):
    with pytest.raises(PhotoFailure, match="3600 megapixels, over the limit of 200"):
        read(bomb(tmp_path))
    Image.fromarray(pixels).save(tmp_path / "p.jpg")
    read(tmp_path / "p.jpg", max_megapixels=0.0077)
    with pytest.raises(PhotoFailure, match="max_megapixels"):
        read(tmp_path / "p.jpg", max_megapixels=0.0076)
    monkeypatch.setattr(reading, "available_memory_bytes", lambda: 100_000)
    with pytest.raises(PhotoFailure, match="of memory"):
        read(tmp_path / "p.jpg")


def test_a_photo_over_pillows_own_limit_is_read(tmp_path, monkeypatch, pixels, read):
    for name in ("JPEG", "WEBP", "AVIF"):
        Image.fromarray(pixels).save(tmp_path / f"p.{name.lower()}", name)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert read(tmp_path / f"p.{name.lower()}").size == pixels.shape[:2]
        assert Image.MAX_IMAGE_PIXELS == 100
        monkeypatch.undo()


def test_unreadable_files(tmp_path, read):
    with pytest.raises(PhotoFailure, match="not a file"):
        read(tmp_path / "missing.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(PhotoFailure, match="not a file"):
        read(tmp_path / "folder.jpg")


def test_free_memory_is_known_here():
    free = available_memory_bytes()
    assert free is None or 1e6 < free < 1e14


@pytest.mark.parametrize(
    "fields", [{"max_megapixels": 0}, {"memory_fraction": 0}, {"memory_fraction": 1.5}]
)
def test_reading_config_refuses_nonsense(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ReadingConfig(**fields)


def test_output_config_refuses_nonsense_and_warns_of_loss():
    for fields in ({"jpeg_quality": 0}, {"format": "gif"}, {"chroma": "4:1:1"}, {"webp": "no"}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            OutputConfig(**fields)
    with pytest.warns(UserWarning, match="removes much of a cloak"):
        OutputConfig(jpeg_quality=75)


def test_source_digest_and_original_untouched(tmp_path, pixels, read):
    path = tmp_path / "p.png"
    Image.fromarray(pixels).save(path)
    data, changed = path.read_bytes(), path.stat().st_mtime_ns
    photo = read(path)
    assert photo.source_sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(ValueError, match="is the original"):
        write_photo(photo, path, OutputConfig())
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is the original"):
        write_photo(photo, tmp_path / "link" / "p.png", OutputConfig())
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (data, changed)


def test_written_as_png(tmp_path, pixels, read, icc):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = icc("DisplayP3-v4")
    Image.fromarray(pixels).save(tmp_path / "p.jpg", exif=exif, icc_profile=profile)
    photo = read(tmp_path / "p.jpg")
    write_photo(photo, tmp_path / "out.png", OutputConfig(format="png"))
    again = read(tmp_path / "out.png")
    assert (again.format, again.size) == ("PNG", photo.size)
    assert again.picture.icc == profile and again.picture.exif == photo.picture.exif
    assert torch.equal(again.srgb(), photo.srgb())


def test_output_names():
    keys = ["a.jpg", "a.png", "b/c.TIF"]
    assert output_names(keys, OutputConfig()) == {k: k for k in keys}
    named = output_names(keys, OutputConfig(format="png"))
    assert list(named.values()) == ["a.jpg.png", "a.png", "b/c.TIF.png"]
    with pytest.raises(ValueError, match="both be written"):
        output_names(["a.jpg", "a.jpg.png"], OutputConfig(format="png"))


def test_members_written_as_png_are_read_again_as_photos(tmp_path):
    assert member_name("p/sub/a.jpg", OutputConfig()) == "p/sub/a.jpg"
    names = [member_name(f"p/{n}", OutputConfig(format="png")) for n in ("a.JPG", "b.png")]
    write_tar(tmp_path / "p.tar", [(name.partition("/")[2], b"x") for name in names])
    found = list_shard(open_shard(str(tmp_path / "p.tar"), ForwardReader()), {".png"})
    assert list(found.samples) == ["p/a.png", "p/b.png"] and not found.broken


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o444, 0o644), (0o777, 0o644)])
def test_who_may_not_read_the_original_may_not_read_the_cloak(
    tmp_path, pixels, read, mode, expected
):
    Image.fromarray(pixels).save(tmp_path / "p.png")
    (tmp_path / "p.png").chmod(mode)
    write_photo(read(tmp_path / "p.png"), tmp_path / "out" / "p.png", OutputConfig())
    assert (tmp_path / "out" / "p.png").stat().st_mode & 0o777 == expected


@pytest.mark.parametrize("size", [(10, 40), (40, 10)])
def test_photos_too_small_to_be_judged_are_refused_before_any_step(tmp_path, read, size):
    Image.new("RGB", size).save(tmp_path / "p.png")
    with pytest.raises(PhotoFailure, match="under 11 pixels a side"):
        read(tmp_path / "p.png")
    Image.new("RGB", (11, 11)).save(tmp_path / "p.png")
    assert read(tmp_path / "p.png").size == (11, 11)


def _die_in(call: str, path: Path) -> None:
    """Write, and be killed at the first use of a function of `os`."""
    setattr(os, call, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    writing._replace_durably(path, b"new" * 100000)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("existing", [False, True])
def test_killed_while_writing_leaves_the_old_state(call, existing, tmp_path):
    path = tmp_path / "photo.jpg"
    if existing:
        path.write_bytes(b"old")
    child = multiprocessing.get_context("fork").Process(target=_die_in, args=(call, path))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert path.exists() == existing and (not existing or path.read_bytes() == b"old")
    left = [p for p in tmp_path.iterdir() if p != path]
    assert len(left) == 1 and left[0].suffix == ".partial"
    assert remove_partials(tmp_path) == 1 and not left[0].exists()


def test_a_full_disk_is_a_reason(tmp_path, pixels, read, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "p.png")
    photo = read(tmp_path / "p.png")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PhotoFailure, match="No space left"):
        write_photo(photo, tmp_path / "out" / "p.png", OutputConfig())
    assert list((tmp_path / "out").iterdir()) == []
