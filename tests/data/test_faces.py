"""The detector on the astronaut, on pictures without faces, and on real photos where present."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from anti_i2v_lit.data.faces import FaceConfig, FaceDetector

DATA = Path(os.environ.get("ANTI_I2V_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "photos").is_dir(), reason=f"no test photos in {DATA}; set ANTI_I2V_DATA"
)


@cache
def detector() -> FaceDetector:
    return FaceDetector(FaceConfig())


def as_photo(pixels: np.ndarray) -> torch.Tensor:
    pixels = np.array(pixels)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return torch.from_numpy(pixels[..., :3]).permute(2, 0, 1).float() / 255.0


def astronaut() -> torch.Tensor:
    return as_photo(skimage.data.astronaut())


def shrunk(photo: torch.Tensor, side: int) -> torch.Tensor:
    pixels = (photo.permute(1, 2, 0) * 255).byte().numpy()
    return as_photo(np.asarray(Image.fromarray(pixels).resize((side, side))))


def is_astronaut(box: tuple[float, ...]) -> bool:
    """Where a person looking at the picture puts the face, as shares."""
    return bool(np.allclose(box, (0.35, 0.12, 0.53, 0.35), atol=0.05))


def test_finds_the_astronaut_once():
    (face,) = detector().detect(astronaut())
    assert is_astronaut(face.box)
    assert face.score > 0.99


def test_landmarks_are_where_the_eyes_nose_and_mouth_are():
    (face,) = detector().detect(astronaut())
    # Read off the enlarged picture by eye, pixels of 512.
    seen = np.array([(203, 101), (247, 104), (223, 127), (203, 140), (246, 141)]) / 512
    np.testing.assert_allclose(face.landmarks, seen, atol=0.01)


def test_mirrored_photo_gives_mirrored_face():
    (face,) = detector().detect(astronaut())
    (mirrored,) = detector().detect(astronaut().flip(2))
    left, top, right, bottom = mirrored.box
    np.testing.assert_allclose((1 - right, top, 1 - left, bottom), face.box, atol=0.02)


@pytest.mark.parametrize("side", [128, 192, 1500])
def test_finds_the_astronaut_at_other_sizes(side):
    (face,) = detector().detect(shrunk(astronaut(), side))
    assert is_astronaut(face.box)


def test_several_faces_are_sorted_by_area():
    black = torch.zeros(3, 512, 512)
    black[:, 128:384, 128:384] = shrunk(astronaut(), 256)
    faces = detector().detect(torch.cat([black, astronaut(), black], dim=2))
    assert len(faces) == 3
    assert faces[0].area > 3 * faces[1].area
    assert 1 / 3 < faces[0].box[0] < faces[0].box[2] < 2 / 3
    assert faces[1].area >= faces[2].area


@pytest.mark.parametrize(
    "name",
    ["brick", "grass", "gravel", "coins", "moon", "page", "coffee", "chelsea", "retina"],
)
def test_finds_nothing_where_nobody_is(name):
    assert detector().detect(as_photo(getattr(skimage.data, name)())) == []


def test_finds_nothing_in_noise_and_plain_colour():
    noise = torch.rand(3, 300, 400, generator=torch.Generator().manual_seed(0))
    for photo in (noise, torch.zeros(3, 300, 400), torch.ones(3, 40, 30)):
        assert detector().detect(photo) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (7, 9)])
def test_survives_slivers(size):
    assert detector().detect(torch.full((3, *size), 0.5)) == []


def test_smallest_face_is_a_setting():
    strict = FaceDetector(FaceConfig(min_face_px=200))
    assert strict.detect(astronaut()) == []


def test_same_photo_same_faces_and_input_untouched():
    photo = astronaut()
    before = photo.clone()
    assert detector().detect(photo) == detector().detect(photo)
    assert torch.equal(photo, before)


def test_many_photos_at_once_are_found_as_one_by_one():
    person, other = shrunk(astronaut(), 256), as_photo(skimage.data.chelsea()[:256, :256])
    two = torch.cat([shrunk(astronaut(), 128).repeat(1, 2, 1), other[:, :, :128]], dim=2)
    photos = torch.stack([person, other, two[:, :, :256], person.flip(2), torch.zeros_like(other)])
    photos = torch.cat([photos] * 4)  # more than the networks see together
    found = detector().detect_all(photos)
    assert [len(faces) for faces in found[:5]] == [1, 0, 2, 1, 0]
    for photo, faces in zip(photos[:5], found[-5:], strict=True):
        alone = detector().detect(photo)
        assert len(alone) == len(faces)
        for ours, theirs in zip(faces, alone, strict=True):
            np.testing.assert_allclose(ours.box, theirs.box, atol=1e-5)
            np.testing.assert_allclose(ours.landmarks, theirs.landmarks, atol=1e-5)
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_autocast_changes_nothing():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = detector().detect(astronaut())
    assert inside == detector().detect(astronaut())


@needs_data
def test_one_face_in_each_portrait():
    for path in sorted((DATA / "photos" / "portraits").glob("*.jpg"))[::4]:
        photo = as_photo(np.asarray(Image.open(path).convert("RGB")))
        for version in (photo, shrunk(photo, 128)):
            faces = detector().detect(version)
            assert len(faces) == 1, path.name
            left, top, right, bottom = faces[0].box
            assert 0.05 < faces[0].area < 0.6
            assert left < 0.5 < right
            eyes, mouth = faces[0].landmarks[:2], faces[0].landmarks[3:]
            assert all(left < x < right and top < y < bottom for x, y in (*eyes, *mouth))
            assert max(y for _, y in eyes) < min(y for _, y in mouth)


@needs_data
def test_four_people_side_by_side():
    paths = sorted((DATA / "photos" / "portraits").glob("*.jpg"))[1:5]
    photos = [shrunk(as_photo(np.asarray(Image.open(p).convert("RGB"))), 256) for p in paths]
    faces = detector().detect(torch.cat(photos, dim=2))
    centres = sorted((face.box[0] + face.box[2]) / 2 for face in faces)
    np.testing.assert_allclose(centres, [0.125, 0.375, 0.625, 0.875], atol=0.05)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_side_px": 10},
        {"min_side_px": 0},
        {"min_side_px": 700},
        {"min_face_px": 5},
        {"min_score": 1.5},
        {"candidate_score": float("nan")},
    ],
)
def test_refuses_settings(fields):
    with pytest.raises(ValueError, match=f"faces.{next(iter(fields))}"):
        FaceConfig(**fields)


def test_refuses_bad_photos():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        detector().detect(astronaut() * 255)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        detector().detect(torch.full((3, 64, 64), float("nan")))
    with pytest.raises(ValueError, match="float32"):
        detector().detect(astronaut().double())
