"""ArcFace's alignment and normalisation, with a small ONNX network in place of the published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, warp

from anti_i2v_lit.metrics.arcface import ArcFace
from anti_i2v_lit.metrics.face_embedder import align_face
from tests.metrics.stand_ins import random_kernel, write_arcface

pytest.importorskip("onnx", reason="the test extra brings onnx")
pytest.importorskip("onnxruntime", reason="the arcface extra brings onnxruntime")

# insightface 0.7.3, utils/face_align.py, `arcface_dst`: pixel centres at whole numbers.
PUBLISHED = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


@pytest.fixture(scope="module")
def kernel() -> np.ndarray:
    return random_kernel()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, kernel: np.ndarray) -> Path:
    return write_arcface(tmp_path_factory.mktemp("arcface") / "net.onnx", kernel)


def test_the_whole_way_equals_insightface_recipe(weights: Path, kernel: np.ndarray) -> None:
    """Similarity transform to the template, (x - 127.5) / 127.5, the network, unit length."""
    photo = astronaut()[:300, 80:380]
    noise = np.random.default_rng(1).normal(0, 1, (5, 2))
    place = SimilarityTransform(scale=0.8, rotation=0.2, translation=[70, 40])
    landmarks = place(PUBLISHED) + noise
    to_crop = SimilarityTransform.from_estimate(landmarks, PUBLISHED)
    crop = warp(photo.astype(float), to_crop.inverse, output_shape=(112, 112), order=1)
    blob = torch.from_numpy((crop - 127.5) / 127.5).permute(2, 0, 1)[None].float()
    raw = torch.nn.functional.conv2d(blob, torch.from_numpy(kernel), stride=16).mean((2, 3))[0]
    expected = raw / raw.norm()

    tensor = torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 255
    points = torch.from_numpy(landmarks + 0.5).float()
    embedder = ArcFace(ArcFace.Config(weights=str(weights)))
    aligned = align_face(tensor, points, torch.tensor(ArcFace.template), 112)
    np.testing.assert_allclose(aligned.permute(1, 2, 0) * 255, crop, atol=0.6)
    found = embedder.embed(tensor, points)
    assert found.norm().item() == pytest.approx(1, abs=1e-5)
    assert (found @ expected).item() == pytest.approx(1, abs=1e-5)


def test_photos_of_a_batch_do_not_meet(weights: Path) -> None:
    embedder = ArcFace(ArcFace.Config(weights=str(weights)))
    photos = torch.rand(3, 3, 140, 140, generator=torch.Generator().manual_seed(0))
    points = (torch.tensor(ArcFace.template) + 10).repeat(3, 1, 1)
    together = embedder.embed_all(photos, points)
    for photo, expected in zip(photos, together, strict=True):
        torch.testing.assert_close(embedder.embed(photo, points[0]), expected)


def test_another_network_is_refused(tmp_path: Path, kernel: np.ndarray) -> None:
    path = write_arcface(tmp_path / "net.onnx", kernel, side=224)
    with pytest.raises(ValueError, match="take w600k_r50.onnx of buffalo_l"):
        ArcFace(ArcFace.Config(weights=str(path)))
