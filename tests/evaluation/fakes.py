"""Judges' parts whose answers are known beforehand, and photos made of formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.evaluation.judge import Judge
from anti_i2v_lit.generators.base import VideoGenerator

POINTS = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75))
FACE = Face(box=(0.2, 0.2, 0.8, 0.9), score=1.0, landmarks=POINTS)


class BrightDetector:
    """Sees one face in every image whose mean is at least a limit."""

    def __init__(self, limit: float = 0.0) -> None:
        self.limit = limit

    def detect(self, photo: Tensor) -> list[Face]:
        return [FACE] if photo.mean() >= self.limit else []

    def detect_all(self, photos: Tensor) -> list[list[Face]]:
        return [self.detect(photo) for photo in photos]


class MeanEmbedder:
    """Unit vector of the mean colour; stands where a `FaceEmbedder` stands."""

    def __init__(self, digest: str = "0") -> None:
        self.network, self.digest = nn.Identity(), digest

    def to(self, device: torch.device | str) -> Self:
        return self

    def embed_all(self, photos: Tensor, landmarks: Tensor) -> Tensor:
        assert landmarks.shape == (len(photos), 5, 2)
        return torch.nn.functional.normalize(photos.mean(dim=(2, 3)), dim=-1)

    def embed(self, photo: Tensor, landmarks: Tensor) -> Tensor:
        return self.embed_all(photo[None], landmarks[None])[0]


class FadingGenerator(VideoGenerator):
    """Clips that fade from the photo to its average, with a little seeded noise; counts calls."""

    def __init__(self) -> None:
        self.clips_made = 0
        self.seeds: list[int] = []
        self.stop_after = 10**9

    @property
    def view_size(self) -> tuple[int, int]:
        return (24, 24)

    @classmethod
    def tiny(cls) -> Self:
        return cls()

    def _generate(self, photos: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
        if self.clips_made >= self.stop_after:
            raise KeyboardInterrupt
        self.clips_made += len(photos)
        self.seeds += seeds
        share = torch.linspace(0, 1, 3).view(1, 3, 1, 1, 1)
        flat = photos.mean(dim=(2, 3), keepdim=True).expand_as(photos)
        noise = torch.stack(
            [torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )
        return photos[:, None] * (1 - share) + flat[:, None] * share + 0.02 * noise

    def encode(self, photos: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(photos, 8) * 3 + 1

    def reconstruct(self, photos: Tensor) -> Tensor:
        return photos


def fake_judge(limit: float = 0.0) -> Judge:
    return Judge(
        detector=BrightDetector(limit),
        embedders={"dlib": MeanEmbedder()},
        encoders={"own": FadingGenerator().encode},
    )


def picture(seed: int, side: int = 48) -> np.ndarray:
    """Smooth colours with a little grain, uint8 [side, side, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(6 * x * rng.uniform(0.5, 2) + 5 * y * rng.uniform(0.5, 2)) for _ in range(3)]
    values = 0.5 + 0.3 * np.stack(waves, axis=-1) + rng.normal(0, 0.02, (side, side, 3))
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def write_photos(folder: Path, count: int, side: int = 48) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        paths.append(folder / f"photo{number}.png")
        Image.fromarray(picture(number, side)).save(paths[-1])
    return paths


def write_noisy(photos: list[Path], folder: Path, levels: int) -> None:
    """Protected copies: every channel moved by exactly `levels`, away from the nearer end."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in photos:
        pixels = np.asarray(Image.open(path)).astype(int)
        blocks = np.indices(pixels.shape)[:2] // 16
        signs = np.where(blocks.sum(axis=0) % 2 == 0, 1, -1)
        inside = np.clip(pixels, levels, 255 - levels)
        Image.fromarray((inside + levels * signs).astype(np.uint8)).save(folder / path.name)
