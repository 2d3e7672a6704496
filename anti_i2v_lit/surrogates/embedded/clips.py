"""Stage two: render clips, encode them once, keep latents and captions in shards."""

from __future__ import annotations

import dataclasses
import pathlib

import torch
from torch import Tensor
from torch.nn import functional

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.family import PictureEncoder
from anti_i2v_lit.surrogates.embedded.motion import Face, Framing, random_program, render
from anti_i2v_lit.surrogates.embedded.photos import random_crops, seeded


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """What the clips are made of."""

    count: int = 6000  # clips
    shard: int = 200  # clips a file
    frames: int = 5  # frames a clip
    real_share: float = 0.15  # share cut from real training clips instead of rendered, [0, 1]
    still_caption_share: float = 0.1  # share of clips whose caption is empty, [0, 1]
    seed: int = 0  # seed of everything drawn in this stage

    def __post_init__(self) -> None:
        """Refuse empty stages."""
        if min(self.count, self.shard, self.frames) < 1:
            raise ValueError(
                f"count={self.count}, shard={self.shard}, frames={self.frames} arrived; expected 1 "
                "or more of each; raise them."
            )
        if not (0 <= self.real_share <= 1 and 0 <= self.still_caption_share <= 1):
            raise ValueError(
                f"real_share={self.real_share}, still_caption_share={self.still_caption_share} "
                "arrived; expected shares in [0, 1]; correct them."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Pictures to render from and real clips to cut from."""

    photos: Tensor  # [N, 3, S, S] uint8
    faces: tuple[Face, ...]  # one a photo
    videos: tuple[Tensor, ...] = ()  # each [T, 3, S', S'] uint8
    video_captions: tuple[str, ...] = ()  # one a video

    def __post_init__(self) -> None:
        """Refuse lists of different lengths."""
        if len(self.photos) != len(self.faces) or len(self.videos) != len(self.video_captions):
            raise ValueError(
                f"{len(self.photos)} photos with {len(self.faces)} faces and {len(self.videos)} "
                f"videos with {len(self.video_captions)} captions arrived; expected one each."
            )


def make_clip(
    source: ClipSource, index: int, *, size: int, options: ClipOptions
) -> tuple[Tensor, str]:
    """Clip number ``index``: ``[T, 3, size, size]`` in [-1, 1] and its caption."""
    generator = seeded(options.seed, index, "clip")
    real, choice = torch.rand(2, generator=generator).tolist()
    if source.videos and real < options.real_share:
        number = int(choice * len(source.videos))
        clip = _cut(source.videos[number], options.frames, size, generator)
        return clip, source.video_captions[number]
    number = int(choice * len(source.photos))
    picture, face = source.photos[number].float() / 127.5 - 1.0, source.faces[number]
    mirror, side, x, y = torch.rand(4, generator=generator).tolist()
    if mirror < 0.5:
        picture, face = picture.flip(-1), dataclasses.replace(face, x=1.0 - face.x)
    side = max(min(1.0, 1.6 * face.height), 0.6 + 0.38 * side)
    framing = Framing(
        x=_inside(face.x + 0.1 * (x - 0.5), side),
        y=_inside(face.y + 0.06 + 0.1 * (y - 0.5), side),
        side=side,
    )
    program = random_program(generator)
    clip = render(
        _jitter(picture, generator),
        program,
        framing=framing,
        face=face,
        frames=options.frames,
        size=size,
    )
    return clip, program.caption


def _inside(centre: float, side: float) -> float:
    """The centre nearest to the wanted one whose square stays inside the picture."""
    return min(max(centre, side / 2), 1.0 - side / 2)


def _jitter(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Slightly other brightness, contrast and saturation."""
    brightness, contrast, colour = (torch.rand(3, generator=generator) * 2 - 1).tolist()
    grey = picture.mean(0, keepdim=True)
    picture = grey + (picture - grey) * (1.0 + 0.2 * colour)
    return (picture * (1.0 + 0.12 * contrast) + 0.08 * brightness).clamp(-1.0, 1.0)


def _cut(video: Tensor, frames: int, size: int, generator: torch.Generator) -> Tensor:
    """Frames at a random stride of 2 to 5, the same random crop for all, maybe mirrored."""
    stride, start, scale, x, mirror = torch.rand(5, generator=generator).tolist()
    step = min(2 + int(stride * 4), (len(video) - 1) // (frames - 1)) if frames > 1 else 1
    first = int(start * (len(video) - step * (frames - 1)))
    side = int(video.shape[-1] * (0.75 + 0.25 * scale))
    left, top = int(x * (video.shape[-1] - side)), (video.shape[-1] - side) // 3
    cut = video[first : first + step * frames : step, :, top : top + side, left : left + side]
    cut = cut.float()[:frames]
    cut = functional.interpolate(cut, size=(size, size), mode="bilinear", antialias=True)
    cut = cut.div(127.5).sub(1.0)
    return cut.flip(-1) if mirror < 0.5 else cut


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedClips:
    """Clips as the denoiser trains on them."""

    latents: Tensor  # [N, T, C, h, w] fp16, whitened
    captions: tuple[str, ...]  # one a clip; some empty
    tokens: Tensor  # [N, K, W] fp16, image tokens of the first frame; K = 0 without an encoder


@torch.no_grad()
def encode_shards(
    model: PictureAutoencoder,
    encoder: PictureEncoder,
    source: ClipSource,
    folder: pathlib.Path,
    *,
    options: ClipOptions,
    device: torch.device,
) -> None:
    """Write the shards that are missing, each with the entries of :class:`EncodedClips`.

    Encoding runs in float32: whitening magnifies the directions of least variance, and with them
    the rounding of a shorter format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = model.shape.sample_size
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    encoder = encoder.to(device).eval()
    for first in range(0, options.count, options.shard):
        path = folder / f"{first:06d}.pt"
        if path.exists():
            continue
        latents, captions, tokens = [], [], []
        for index in range(first, min(first + options.shard, options.count)):
            clip, caption = make_clip(source, index, size=size, options=options)
            clip = clip.to(device, memory_format=torch.channels_last)
            latents.append(model.encode(clip)[0].to("cpu", torch.float16))
            tokens.append(encoder.tokens(clip[:1])[0].to("cpu", torch.float16))
            blank = torch.rand((), generator=seeded(options.seed, index, "caption")).item()
            captions.append("" if blank < options.still_caption_share else caption)
        draft = path.with_suffix(".draft")
        shard = {
            "latents": torch.stack(latents),
            "captions": captions,
            "tokens": torch.stack(tokens),
        }
        torch.save(shard, draft)
        draft.replace(path)
        print(f"clips {first + len(captions)} of {options.count}", flush=True)


def load_shards(folder: pathlib.Path, count: int) -> EncodedClips:
    """The first ``count`` clips of the shards in a folder.

    Raises:
        ValueError: The folder holds no shard, or shards of another version.
    """
    parts = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]
    if not parts:
        raise ValueError(f"{folder} holds no shard; expected encoded clips; run that stage first.")
    if any("tokens" not in part for part in parts):
        raise ValueError(
            f"{folder} holds shards without image tokens; expected those that this version "
            "writes; delete the folder and run that stage again."
        )
    return EncodedClips(
        latents=torch.cat([part["latents"] for part in parts])[:count],
        captions=tuple([caption for part in parts for caption in part["captions"]][:count]),
        tokens=torch.cat([part["tokens"] for part in parts])[:count],
    )


def latent_sample(
    model: PictureAutoencoder, photos: Tensor, *, count: int, seed: int, device: torch.device
) -> Tensor:
    """Latent means of ``count`` random crops, ``[count, C, h, w]`` float32, for whitening."""
    generator = seeded(seed, 0, "whitening")
    picks = torch.randint(len(photos), (count,), generator=generator).tolist()
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    out = []
    for first in range(0, count, 16):
        images = random_crops(
            photos, picks[first : first + 16], size=model.shape.sample_size, generator=generator
        )
        with torch.no_grad():
            images = images.to(device, memory_format=torch.channels_last)
            out.append(model.encode(images)[0].float().cpu())
    return torch.cat(out)
