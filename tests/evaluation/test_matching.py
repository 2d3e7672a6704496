"""Pairs by name, list and picture; numbers from NumPy and scikit-image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures

from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.evaluation.affixes import by_name
from anti_i2v_lit.evaluation.likeness import find_frame, likeness, thumbnail
from anti_i2v_lit.evaluation.matching import match
from anti_i2v_lit.evaluation.places import clean_photos
from anti_i2v_lit.evaluation.records import Digests
from tests.evaluation.fakes import write_photos


def read(source: SourceFile) -> torch.Tensor:
    return read_photo(source, ReadingConfig()).srgb()


def matched(folder: Path, pairs_file: Path | None = None):
    photos = clean_photos(folder / "photos", folder / "out").sources
    return match(
        "peer",
        folder / "peer",
        photos,
        out=folder / "out",
        read=read,
        sha256=Digests().of,
        pairs_file=pairs_file,
    )


def copied(folder: Path, names: dict[str, str]) -> None:
    """Peer's files: photo -> name, as 512-pixel PNGs in the manner of published tools."""
    (folder / "peer").mkdir()
    for photo, name in names.items():
        Image.open(folder / "photos" / photo).resize((64, 64)).save(folder / "peer" / name)


@pytest.mark.parametrize(
    ("stems", "names", "expected"),
    [
        (["img_1", "img_12"], ["mist_img_12_eps16"], {"img_12": ["mist_img_12_eps16"]}),
        (["cat", "concatenate"], ["concatenate-x"], {"concatenate": ["concatenate-x"]}),
        (["Anna"], ["anna(1)", "anna"], {"Anna": ["anna(1)", "anna"]}),
        (["a"], ["ba", "ab"], {}),
        (["a", "b"], ["a_b"], {}),
        (["img", "img_12"], ["img_12_img"], {}),
        (["img", "img_12"], ["x-img_12"], {"img_12": ["x-img_12"]}),
        (["16", "3"], ["mist_3_eps_16", "16-bit"], {"16": ["16-bit"]}),
        (["x 1", "1 y"], ["x 1 y"], {}),
    ],
)
def test_a_name_speaks_of_its_only_stem_between_borders(stems, names, expected) -> None:
    found = by_name({s: s for s in stems}, {n: n for n in names})
    assert found == expected


def test_names_tell(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    copied(
        tmp_path,
        {
            "photo0.png": "photo0.png",
            "photo1.png": "adv_photo1_eps8.png",
            "photo2.png": "photo2.webp",
        },
    )
    found = matched(tmp_path)
    assert {k: p.file.key for k, p in found.pairs.items()} == {
        "photo0.png": "photo0.png",
        "photo1.png": "adv_photo1_eps8.png",
        "photo2.png": "photo2.webp",
    }
    assert found.problems == () and found.source == "folder"


def test_numbers_in_a_name_leave_the_choice_to_the_picture(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    for old, new in (("photo0.png", "16.png"), ("photo1.png", "3.png")):
        (tmp_path / "photos" / old).rename(tmp_path / "photos" / new)
    copied(tmp_path, {"3.png": "mist_3_eps_16.png"})
    found = matched(tmp_path)
    assert {k: (p.file.key, p.how) for k, p in found.pairs.items()} == {
        "3.png": ("mist_3_eps_16.png", "the same picture")
    }
    assert [(p.kind, p.photo) for p in found.problems] == [("missing", "16.png")]
    copied_again = tmp_path / "peer" / "3.png"
    Image.open(tmp_path / "photos" / "3.png").save(copied_again)
    assert list(matched(tmp_path).pairs) == ["3.png"], "16 is not what the other file shows"


def test_a_file_belongs_to_one_photo(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 1)
    picture = Image.open(tmp_path / "photos" / "photo0.png")
    for name in ("x.jpg", "x.png", "y.jpg", "y.webp", "z.jpg", "z.jpg.png"):
        picture.save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "photo0.png").unlink()
    (tmp_path / "peer").mkdir()
    for name in ("x.png", "y.png", "z.jpg.png"):
        picture.save(tmp_path / "peer" / name)
    found = matched(tmp_path)
    pairs = {k: p.file.key for k, p in found.pairs.items()}
    assert pairs == {"x.png": "x.png", "z.jpg.png": "z.jpg.png"}
    problems = {p.photo: (p.kind, p.reason.split(";")[0]) for p in found.problems}
    assert problems == {
        "x.jpg": ("missing", "no file of this name or picture"),
        "y.jpg": ("ambiguous", "it could be y.png"),
        "y.webp": ("ambiguous", "it could be y.png"),
        "z.jpg": ("missing", "no file of this name or picture"),
    }
    (tmp_path / "list.csv").write_text("x.jpg,x.png\n")
    listed = matched(tmp_path, tmp_path / "list.csv")
    assert listed.pairs["x.jpg"].file.key == "x.png" and "x.png" not in listed.pairs


def test_pictures_tell_where_names_do_not(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    copied(tmp_path, {"photo0.png": "0.png", "photo1.png": "2.png", "photo2.png": "1.png"})
    found = matched(tmp_path)
    assert {k: p.file.key for k, p in found.pairs.items()} == {
        "photo0.png": "0.png",
        "photo1.png": "2.png",
        "photo2.png": "1.png",
    }
    assert {p.how for p in found.pairs.values()} == {"the same picture"}


def test_what_cannot_be_told_apart_is_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    copied(tmp_path, {"photo0.png": "x.png", "photo1.png": "photo1_a.png"})
    Image.open(tmp_path / "peer" / "x.png").save(tmp_path / "peer" / "y.png")
    Image.open(tmp_path / "peer" / "x.png").save(tmp_path / "peer" / "unrelated.gif")
    found = matched(tmp_path)
    assert list(found.pairs) == ["photo1.png"]
    kinds = {p.kind: p for p in found.problems}
    assert "x.png or y.png" in kinds["ambiguous"].reason and kinds["ambiguous"].fails


def test_a_list_decides(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    copied(tmp_path, {"photo0.png": "x.png", "photo1.png": "y.png"})
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("photo,cloak\nphoto0.png,y.png\nphoto1.png,x.png\n")
    found = matched(tmp_path, pairs)
    assert {k: p.file.key for k, p in found.pairs.items()} == {
        "photo0.png": "y.png",
        "photo1.png": "x.png",
    }
    pairs.write_text("photo0.png,z.png\n")
    with pytest.raises(ValueError, match="line 1: no file is called 'z.png'"):
        matched(tmp_path, pairs)


def test_a_list_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    copied(tmp_path, {"photo0.png": "x.png", "photo1.png": "y.png"})
    pairs, expected = tmp_path / "pairs.csv", {"photo0.png": "y.png", "photo1.png": "x.png"}
    for head in ("", "photo,file\n", "\n"):
        text = head + "photo0.png,y.png\n\n,\nphoto1.png,x.png\n\n"
        pairs.write_text(text, encoding="utf-8-sig")
        found = matched(tmp_path, pairs)
        assert {k: p.file.key for k, p in found.pairs.items()} == expected
    for slip in ("photo7.png,y.png\n", "photo,file\nphoto7.png,y.png\n"):
        pairs.write_text(slip)
        with pytest.raises(ValueError, match="no file is called 'photo7.png'"):
            matched(tmp_path, pairs)


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    copied(tmp_path, {"photo0.png": "photo0.png"})
    for folder, name in (("photos", "gone.png"), ("peer", "photo1.png"), ("peer", "other.png")):
        (tmp_path / folder / name).symlink_to(tmp_path / "nowhere.png")
    found = clean_photos(tmp_path / "photos", tmp_path / "out")
    keys = {source.key for source in found.sources}
    assert keys == {"photo0.png", "photo1.png"}
    (problem,) = found.problems("", keys)
    assert problem.kind == "unreadable" and problem.fails and problem.photo == ""
    assert problem.reason.startswith("gone.png: ") and "link" in problem.reason
    broken = [p for p in matched(tmp_path).problems if p.kind == "unreadable"]
    assert {p.photo for p in broken} == {"", "photo1.png"}
    assert {p.protection for p in broken} == {"peer"}


def test_nothing_that_fits_is_a_usage_error(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "peer").mkdir()
    Image.fromarray(pictures.coffee()).save(tmp_path / "peer" / "z.png")
    with pytest.raises(ValueError, match="--pairs"):
        matched(tmp_path)


def test_a_manifest_decides_by_key_and_by_bytes(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 3)
    sha = [Digests().of(SourceFile(key="", path=path)) for path in paths]
    (tmp_path / "peer").mkdir()
    ledger = Ledger(tmp_path / "peer")
    for key, number, output in (("photo0.png", 0, "photo0.png"), ("old/photo1.png", 1, "o.png")):
        Image.new("RGB", (48, 48), (number, 0, 0)).save(tmp_path / "peer" / output)
        ledger.append(
            Row(
                key=key,
                status="cloaked",
                source=str(paths[number]),
                source_sha256=sha[number],
                output=output,
                surrogates=("cogvideox:embedded",),
            )
        )
    ledger.append(Row(key="photo2.png", status="refused", reason="too visible"))
    found = matched(tmp_path)
    assert found.source == "manifest" and found.surrogates == ("cogvideox:embedded",)
    assert {k: p.file.key for k, p in found.pairs.items()} == {
        "photo0.png": "photo0.png",
        "photo1.png": "o.png",
    }
    (problem,) = found.problems
    assert problem.photo == "photo2.png" and problem.reason == "it was refused: too visible"
    assert found.owners[sha[1]] == "old/photo1.png"
    by_manifest = clean_photos(tmp_path / "peer" / "manifest.jsonl", tmp_path / "out").sources
    assert [source.path for source in by_manifest] == [paths[1], paths[0]]


def picture(name: str) -> torch.Tensor:
    return torch.from_numpy(getattr(pictures, name)()).permute(2, 0, 1).float() / 255


def test_thumbnails_correlate_as_numpy_says() -> None:
    first, second = picture("astronaut"), picture("chelsea")
    a, b = thumbnail(first), thumbnail(second)
    assert np.dot(a, a) == pytest.approx(1)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(float(a @ b), abs=1e-9)
    assert likeness(first, (first + 0.1 * torch.randn(first.shape)).clamp(0, 1)) > 0.95
    assert likeness(first, second) < 0.6


@pytest.mark.parametrize(
    "box",
    [(0.0, 0.0, 1.0, 1.0), (0.125, 0.0, 0.875, 1.0), (0.1, 0.2, 0.7, 0.65), (0.4, 0.1, 0.9, 0.8)],
)
def test_a_crop_is_found_where_it_was_taken(box) -> None:
    photo = picture("coffee")  # 400 x 600
    left, top, right, bottom = (
        round(e * s) for e, s in zip(box, (600, 400, 600, 400), strict=True)
    )
    crop = Image.fromarray(pictures.coffee()[top:bottom, left:right])
    small = np.asarray(crop.resize((160, 120), Image.Resampling.LANCZOS))
    aspect = (right - left) / (bottom - top)
    if abs(aspect - 160 / 120) > 0.01:
        small = np.asarray(crop.resize((round(120 * aspect), 120), Image.Resampling.LANCZOS))
    seen = torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 255
    found, score = find_frame(photo, seen)
    assert score > 0.95
    assert found == pytest.approx(box, abs=0.012)


def test_another_picture_is_found_nowhere() -> None:
    assert find_frame(picture("coffee"), picture("chelsea"))[1] < 0.8
