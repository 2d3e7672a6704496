"""Measure a packaged model: every score of its model card, by one command.

``python -m anti_i2v_lit.evaluation.model_card FOLDER --data ../shared/data`` prints the tables.
Clips come through the generators' seam and latents through the surrogates', so that every family
is measured by the same code. The photos are the first held-out portraits by name, cut to their
centre square; the encoder is attacked on a public photo (`skimage.data.astronaut`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor, nn

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_distance
from anti_i2v_lit.data.faces import FaceConfig, FaceDetector
from anti_i2v_lit.evaluation.foreign import ENCODER_FILE, ForeignEncoder
from anti_i2v_lit.evaluation.judge import pixel_landmarks
from anti_i2v_lit.generators import GENERATORS, VideoGenerator
from anti_i2v_lit.metrics import FACE_EMBEDDERS
from anti_i2v_lit.metrics.dlib_face import FILE as DLIB_FILE
from anti_i2v_lit.metrics.imperceptibility import psnr
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.embedded.fragility import measure_fragility

PROMPTS = (
    "the person turns the head left",
    "the person smiles and the camera zooms in",
    "the person talks",
    "the camera pans right",
    "the person nods",
    "the person turns the head right quickly",
    "the person is talking",
    "the person blinks and the camera rolls left",
    "",
)
# Rows and columns of the astronaut; the whole picture is 512 pixels wide.
CROPS = {
    "face (rows 30-230, columns 120-320)": (slice(30, 230), slice(120, 320)),
    "head and shoulders (rows 0-300, columns 70-370)": (slice(0, 300), slice(70, 370)),
    "whole picture": (slice(None), slice(None)),
}
_FACE_SIDE = 320  # side at which faces are looked for and compared, pixels
_FOREIGN_STEP = 2.0  # first step of the attack on the foreign encoder, grey levels
_TIMESTEPS = (900, 600, 300)  # of 1000, at which the image tokens are swapped


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of a model card.

    Attributes:
        score: what was measured.
        values: the figures.
        digits: digits after the point.
        unit: of the figures; "" for none.
    """

    score: str
    values: Sequence[float]
    digits: int = 2
    unit: str = ""

    def __str__(self) -> str:
        """As a row of a Markdown table."""
        figures = ", ".join(f"{value:.{self.digits}f}" for value in self.values)
        return f"| {self.score} | {figures}{' ' + self.unit if self.unit else ''} |"


class FaceRuler:
    """Finds the largest face of a picture and says how alike two are (dlib's network, cosine)."""

    def __init__(self, weights: Path) -> None:
        self._detector = FaceDetector(FaceConfig())
        self._network = FACE_EMBEDDERS.build({"name": "dlib", "weights": str(weights / DLIB_FILE)})

    @torch.no_grad()
    def person(self, picture: Tensor) -> Tensor | None:
        """Unit vector of the largest face of a picture [3, H, W] in [0, 1]; None without one."""
        large = resize(picture[None], (_FACE_SIDE, _FACE_SIDE))[0].clamp(0.0, 1.0)
        faces = self._detector.detect(large)
        if not faces:
            return None
        return self._network.embed(large, pixel_landmarks(faces[0], large))

    def likeness(self, picture: Tensor, person: Tensor) -> float:
        """Cosine of the picture's largest face to a person; NaN without a face."""
        found = self.person(picture)
        return math.nan if found is None else float(found @ person)


def family_of(folder: Path) -> str:
    """The name, in both registries, of the family whose layout a folder has.

    Raises:
        ValueError: neither layout.
    """
    if (folder / "model_index.json").is_file():
        return "cogvideox"
    if (folder / "config.yaml").is_file():
        return "dynamicrafter"
    raise ValueError(
        f"{folder} holds neither model_index.json nor config.yaml; expected the folder of a "
        "packaged model, such as anti_i2v_lit/surrogates/embedded/weights/mmdit_128"
    )


def build_generator(folder: Path, steps: int) -> VideoGenerator:
    """The model in a folder as the card measures it: DDIM without added noise, no guidance."""
    name = family_of(folder)
    fields: dict[str, Any] = {
        "path": str(folder),
        "num_inference_steps": steps,
        "guidance_scale": 1.0,
    }
    if name == "dynamicrafter":
        fields["eta"] = 0.0
    return GENERATORS.build({"name": name, **fields})


def squares(folder: Path, count: int, size: tuple[int, int]) -> Tensor:
    """Centre squares of the first `count` pictures of a folder by name, [N, 3, H, W] in [0, 1].

    Raises:
        ValueError: fewer pictures.
    """
    paths = sorted(folder.rglob("*.jpg"))[:count]
    if len(paths) < count:
        raise ValueError(f"{folder}: expected {count} pictures *.jpg, found {len(paths)}")
    return torch.cat([_square(Image.open(path).convert("RGB"), size) for path in paths])


def _square(image: Image.Image, size: tuple[int, int]) -> Tensor:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    small = image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


def clip_scores(generator: VideoGenerator, photos: Tensor, ruler: FaceRuler) -> list[Measured]:
    """Autoencoder, faces, likeness and motion over one clip of each photo."""
    alone = generator.reconstruct(photos)
    distance = lpips_distance(load_lpips(), alone, photos).mean().item()
    decibels = [psnr(a, b) for a, b in zip(alone, photos, strict=True)]
    clips = torch.cat(
        [
            generator.generate(photo[None], [PROMPTS[index % len(PROMPTS)]], [index])
            for index, photo in enumerate(photos)
        ]
    )
    fidelity = [
        [psnr(frame, photo) for frame in clip] for clip, photo in zip(clips, photos, strict=True)
    ]
    moved = 255 * (clips[:, 1:] - clips[:, :1]).abs().mean(dim=(0, 2, 3, 4))
    return [
        Measured(score="autoencoder PSNR", values=[float(np.mean(decibels))], digits=1, unit="dB"),
        Measured(score="autoencoder LPIPS", values=[distance], digits=3),
        *_face_scores(photos, alone, clips, ruler),
        Measured(
            score="PSNR of each frame to photo (later ones move)",
            values=np.mean(fidelity, 0).tolist(),
            digits=1,
            unit="dB",
        ),
        Measured(
            score="mean change of later frames against the first",
            values=moved.tolist(),
            digits=1,
            unit="grey levels",
        ),
    ]


def _face_scores(photos: Tensor, alone: Tensor, clips: Tensor, ruler: FaceRuler) -> list[Measured]:
    """Likeness to the photo of the autoencoder's picture and of each frame; faces found."""
    own, frames = [], []
    for photo, decoded, clip in zip(photos, alone, clips, strict=True):
        person = ruler.person(photo)
        if person is None:
            continue
        own.append(ruler.likeness(decoded, person))
        frames.append([ruler.likeness(frame, person) for frame in clip])
    seen, total = int(np.isfinite(frames).sum()), np.size(frames)
    return [
        Measured(
            score="face similarity (dlib, cosine) autoencoder alone to photo",
            values=[float(np.nanmean(own))],
        ),
        Measured(
            score="face similarity of each frame to photo", values=np.nanmean(frames, 0).tolist()
        ),
        Measured(
            score=f"frames in which a face is found ({seen} of {total})",
            values=[100 * seen / total],
            digits=0,
            unit="%",
        ),
    ]


def fragility_scores(folder: Path, weights: Path) -> list[Measured]:
    """How far +-16 grey levels move the latent, in its standard deviations: attack, random."""
    surrogate = SURROGATES.build({"name": family_of(folder), "path": str(folder)})
    attacked: list[tuple[str, Callable[[Tensor], Tensor], float]] = [
        (crop, lambda x: surrogate.condition((x + 1.0) / 2.0).latents, 4.0) for crop in CROPS
    ]
    # The network itself: its `encode` gives no gradients.
    foreign = ForeignEncoder(weights / ENCODER_FILE)
    attacked.append(("whole picture", lambda x: foreign.network((x + 1.0) / 2.0), _FOREIGN_STEP))
    rows = []
    for crop, encode, step in attacked:
        picture = Image.fromarray(astronaut()[CROPS[crop]])
        image = 2.0 * _square(picture, surrogate.view_size) - 1.0
        found = measure_fragility(encode, image, step_levels=step)
        whose = "" if step != _FOREIGN_STEP else f", TAEF2 encoder (first step of {step:.0f})"
        rows.append(
            Measured(
                score=f"fragility, {crop}{whose}: attack, random signs",
                values=[found.attacked, found.random],
            )
        )
    return rows


class _Neighbours(nn.Module):
    """An image embedder that gives each photo the tokens of the one before it."""

    def __init__(self, embedder: nn.Module) -> None:
        super().__init__()
        self._embedder = embedder

    def forward(self, photos: Tensor) -> Tensor:
        """Tokens [B, N, W], rolled along the batch."""
        return self._embedder(photos).roll(1, dims=0)


def swap_scores(folder: Path, photos: Tensor, ruler: FaceRuler, steps: int) -> list[Measured]:
    """What changes when only the image tokens are another person's; DynamiCrafter's family."""
    from anti_i2v_lit.generators.dynamicrafter import DynamiCrafterGenerator
    from anti_i2v_lit.surrogates.dynamicrafter.loading import load_parts

    config = DynamiCrafterGenerator.Config(
        path=str(folder), num_inference_steps=steps, guidance_scale=1.0, eta=0.0
    )
    parts = load_parts(str(folder), 0, torch.float32)
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(len(photos))]
    seeds = list(range(len(photos)))
    own = DynamiCrafterGenerator(config, parts).generate(photos, prompts, seeds)
    # A module of another class in the embedder's place is the point of this measurement.
    swapped_parts = replace(parts, embedder=_Neighbours(parts.embedder))  # type: ignore[arg-type]
    other = DynamiCrafterGenerator(config, swapped_parts).generate(photos, prompts, seeds)
    change = [
        min(psnr(a, b), 100.0)
        for left, right in zip(own, other, strict=True)
        for a, b in zip(left, right, strict=True)
    ]
    people = [ruler.person(photo) for photo in photos]
    return [
        Measured(
            score="clip with another person's image tokens against the clip with its own",
            values=[float(np.mean(change))],
            digits=1,
            unit="dB",
        ),
        Measured(
            score="face similarity to photo: own tokens, another person's",
            values=[_mean_likeness(ruler, clips, people) for clips in (own, other)],
        ),
    ]


def _mean_likeness(ruler: FaceRuler, clips: Tensor, people: Sequence[Tensor | None]) -> float:
    values = [
        ruler.likeness(frame, person)
        for clip, person in zip(clips, people, strict=True)
        if person is not None
        for frame in clip
    ]
    return float(np.nanmean(values))


@torch.no_grad()
def token_scores(folder: Path, photos: Tensor) -> list[Measured]:
    """How much of one prediction hangs on the image tokens, with the photo's latent and without."""
    surrogate = SURROGATES.build({"name": family_of(folder), "path": str(folder)})
    own = surrogate.condition(photos)
    assert own.image_embedding is not None
    clips = photos[:, None].expand(-1, surrogate.num_frames, -1, -1, -1)
    noise = [torch.Generator().manual_seed(index) for index in range(len(photos))]
    draw = surrogate.draw(surrogate.encode_clip(clips), noise, ["the person talks"] * len(photos))
    rows = []
    for said, latents in (("", own.latents), (" and no latent", torch.zeros_like(own.latents))):
        with_own = replace(own, latents=latents)
        with_other = replace(with_own, image_embedding=own.image_embedding.roll(1, dims=0))
        changes = []
        for timestep in _TIMESTEPS:
            at = replace(draw, timesteps=torch.full_like(draw.timesteps, timestep))
            first, second = (
                surrogate.denoise(condition, at, frozenset(), True).prediction
                for condition in (with_own, with_other)
            )
            assert first is not None and second is not None
            changes.append(float((second - first).square().mean().sqrt() / first.std()))
        rows.append(
            Measured(
                score=f"change of the prediction by another person's image tokens{said}, at "
                f"timesteps {', '.join(map(str, _TIMESTEPS))}",
                values=changes,
            )
        )
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parse.add_argument
    add("folder", type=Path, help="folder of a packaged model")
    add("--data", type=Path, required=True, help="folder with photos/portraits and models")
    add("--photos", type=int, default=18, help="portraits, the first by name")
    add("--steps", type=int, default=20, help="denoising steps of a clip")
    add("--json", type=Path, help="also write the figures to this file")
    return parse


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    arguments = parser().parse_args(argv)
    folder, weights = arguments.folder, arguments.data / "models"
    generator = build_generator(folder, arguments.steps)
    photos = squares(arguments.data / "photos" / "portraits", arguments.photos, generator.view_size)
    ruler = FaceRuler(weights)
    rows: list[Measured] = []
    parts: list[Callable[[], list[Measured]]] = [
        lambda: clip_scores(generator, photos, ruler),
        lambda: fragility_scores(folder, weights),
    ]
    if family_of(folder) == "dynamicrafter":
        parts.append(lambda: token_scores(folder, photos))
        parts.append(lambda: swap_scores(folder, photos, ruler, arguments.steps))
    print("| score | value |\n| --- | --- |", flush=True)
    for part in parts:
        found = part()
        rows.extend(found)
        print("\n".join(str(row) for row in found), flush=True)
    if arguments.json is not None:
        figures = {row.score: list(row.values) for row in rows}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
