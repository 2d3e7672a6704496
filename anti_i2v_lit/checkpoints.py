"""Model folders on this machine, packaged or local, and what a folder's model can be asked for."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anti_i2v_lit.checks import check_in

EMBEDDED = "embedded"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PACKAGED = {"cogvideox": "mmdit_128", "dynamicrafter": "unet_128"}
"""Registered model -> folder name of the packaged one of its class."""

_PACKAGED = Path(__file__).parent / "surrogates" / "embedded" / "weights"
_WEIGHT_FILES = {".safetensors", ".ckpt"}
_MODEL_FILES = _WEIGHT_FILES | {".json", ".yaml"}
_EDGE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one class of models lies in a folder.

    Attributes:
        packaged: folder name of the packaged model of this class; "" where there is none.
        needed: glob patterns, relative to the folder, of which each must match something.
        source: name of the published model on the Hugging Face hub, for messages.
        says: (JSON file, key, value) of what tells this class from others of the same layout.
    """

    packaged: str
    needed: tuple[str, ...]
    source: str
    says: tuple[tuple[str, str, str | bool], ...] = ()


COGVIDEOX = Layout(
    packaged=PACKAGED["cogvideox"],
    needed=(
        "model_index.json",
        "transformer/config.json",
        "transformer/*.safetensors",
        "vae/config.json",
        "vae/*.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/*",
    ),
    source="zai-org/CogVideoX-5b-I2V",
    says=(("transformer/config.json", "_class_name", "CogVideoXTransformer3DModel"),),
)
_WAN = ("transformer/config.json", "_class_name", "WanTransformer3DModel")
WAN_2_2 = Layout(
    packaged="",
    needed=COGVIDEOX.needed,
    source="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    says=(_WAN, ("model_index.json", "expand_timesteps", True)),
)
WAN_2_1 = Layout(
    packaged="",
    needed=(
        *COGVIDEOX.needed,
        "image_encoder/config.json",
        "image_encoder/*.safetensors",
        "image_processor/preprocessor_config.json",
    ),
    source="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    says=(_WAN,),
)
LTX = Layout(
    packaged="",
    needed=COGVIDEOX.needed,
    source="Lightricks/LTX-Video",
    says=(("transformer/config.json", "_class_name", "LTXVideoTransformer3DModel"),),
)
SVD = Layout(
    packaged="",
    needed=(
        "model_index.json",
        "unet/config.json",
        "unet/*.safetensors",
        "vae/config.json",
        "vae/*.safetensors",
        "image_encoder/config.json",
        "image_encoder/*.safetensors",
        "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json",
    ),
    source="stabilityai/stable-video-diffusion-img2vid-xt",
    says=(("unet/config.json", "_class_name", "UNetSpatioTemporalConditionModel"),),
)
DYNAMICRAFTER = Layout(
    packaged=PACKAGED["dynamicrafter"], needed=("model.*",), source="Doubiiu/DynamiCrafter_512"
)
OPEN_SORA = Layout(
    packaged="",
    needed=(
        "OpenSora-STDiT-v3/config.json",
        "OpenSora-STDiT-v3/model.safetensors",
        "OpenSora-VAE-v1.2/config.json",
        "OpenSora-VAE-v1.2/model.safetensors",
        "text_encoder/config.json",
        "tokenizer/*",
    ),
    source="hpcai-tech/OpenSora-STDiT-v3",
)
LAYOUTS: Mapping[str, Layout] = {
    "cogvideox": COGVIDEOX,
    "dynamicrafter": DYNAMICRAFTER,
    "ltx": LTX,
    "open_sora": OPEN_SORA,
    "svd": SVD,
    "wan_2_1": WAN_2_1,
    "wan_2_2": WAN_2_2,
}
"""Registered model -> layout of its folders."""


def checkpoint_folder(path: str, layout: Layout) -> Path:
    """Return the folder that a `path` setting names, after a look at what is inside.

    Args:
        path: "embedded" for the packaged model, else a local folder.
        layout: what the folder should hold.

    Raises:
        ValueError: not a folder, or a file is missing; says how to obtain the model.
    """
    how = (
        f"nothing is downloaded at run time: fetch it once with "
        f"'hf download {layout.source} --local-dir FOLDER' and set path=FOLDER"
    )
    if layout.packaged:
        how += f", or set path={EMBEDDED} for the packaged model"
    embedded = path == EMBEDDED and bool(layout.packaged)
    folder = _PACKAGED / layout.packaged if embedded else Path(path).expanduser()
    if embedded and not folder.is_dir():
        raise ValueError(
            f"this installation lacks the packaged model {layout.packaged!r} ({folder}); "
            "install the package again, or set path to a local model folder"
        )
    if not path or not folder.is_dir():
        raise ValueError(f"path: expected a local model folder, got {path!r}; {how}")
    missing = [pattern for pattern in layout.needed if not any(folder.glob(pattern))]
    if missing:
        raise ValueError(
            f"path: {folder} is not a whole model folder, it lacks {', '.join(missing)}; {how}"
        )
    return folder


def folder_objections(name: str, folder: Path) -> list[str]:
    """Why a folder is no checkpoint of a class of models; empty if it is one, as far as it says.

    Args:
        name: registered name of the surrogate or generator. Of a class whose layout is not known
            here (`LAYOUTS`) nothing can be said.
        folder: that exists.
    """
    layout = LAYOUTS.get(name)
    if layout is None:
        return []
    found = [f"it lacks {pattern}" for pattern in layout.needed if not any(folder.glob(pattern))]
    for file, key, expected in layout.says:
        if (folder / file).is_file():
            said = _said(folder / file, key)
            if said != expected:
                found.append(f"{file} says {key}={said!r}, expected {expected!r}")
    return found


def _said(file: Path, key: str) -> object:
    """A value of a JSON file; None where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content.get(key) if isinstance(content, dict) else None


def model_digest(name: str, path: str) -> str:
    """SHA-256 over the files of a model, "" where `path` leads to no folder with weights.

    A file is known by name, size and both ends, since published ones are tens of gigabytes.

    Args:
        name: registered name of the surrogate or generator.
        path: as in its settings.
    """
    embedded = path == EMBEDDED and name in PACKAGED
    folder = packaged_folder(name) if embedded else Path(path).expanduser()
    if not path or not folder.is_dir():
        return ""
    among = [f for f in sorted(folder.rglob("*")) if f.suffix in _MODEL_FILES and f.is_file()]
    if not any(file.suffix in _WEIGHT_FILES for file in among):
        return ""
    return _digest_of_ends(folder, tuple((file, file.stat().st_mtime_ns) for file in among))


def packaged_folder(name: str) -> Path:
    """Where the packaged model of a class lies.

    Args:
        name: one of `PACKAGED`.
    """
    return _PACKAGED / PACKAGED[name]


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over names and all bytes of files; "" for none.

    Args:
        files: that exist, in an order that does not depend on the machine.
    """
    if not files:
        return ""
    resolved = [file.resolve() for file in files]
    folder = Path(os.path.commonpath([file.parent for file in resolved]))
    return _digest_of_bytes(folder, tuple((file, file.stat().st_mtime_ns) for file in resolved))


def ends_digest(place: Path) -> str:
    """SHA-256 over a file, or all files below a folder, known by name, size and both ends.

    Args:
        place: that exists.
    """
    found = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())
    folder = place.parent if place.is_file() else place
    return _digest_of_ends(folder, tuple((file, file.stat().st_mtime_ns) for file in found))


@functools.lru_cache(maxsize=64)
def _digest_of_ends(folder: Path, files: tuple[tuple[Path, int], ...]) -> str:
    """Of files by their ends; their times of change let it be asked often for little."""
    state = hashlib.sha256()
    for file, _ in files:
        size = file.stat().st_size
        state.update(f"{file.relative_to(folder)} {size}\n".encode(errors="surrogateescape"))
        with file.open("rb") as stream:
            state.update(stream.read(_EDGE_BYTES))
            stream.seek(max(0, size - _EDGE_BYTES))
            state.update(stream.read())
    return state.hexdigest()


@functools.lru_cache(maxsize=64)
def _digest_of_bytes(folder: Path, files: tuple[tuple[Path, int], ...]) -> str:
    """`files_digest` of files with their times of change, so that it is asked often for little."""
    state = hashlib.sha256()
    for file, _ in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        line = f"{file.relative_to(folder)} {content}\n"
        state.update(line.encode(errors="surrogateescape"))
    return state.hexdigest()


def cogvideox_view_size(
    transformer: Any, spatial_ratio: int, height: int, width: int
) -> tuple[int, int]:
    """Return (H, W) in pixels at which a CogVideoX model runs.

    Args:
        transformer: configuration of its transformer.
        spatial_ratio: pixels per latent row and column.
        height: wanted, pixels; 0 for the model's own.
        width: wanted, pixels; 0 for the model's own.

    Raises:
        ValueError: a size that the model cannot take.
    """
    own = (transformer.sample_height * spatial_ratio, transformer.sample_width * spatial_ratio)
    size = (height or own[0], width or own[1])
    unit = spatial_ratio * transformer.patch_size
    got = f"got {size[0]} x {size[1]}"
    if size[0] % unit or size[1] % unit:
        raise ValueError(f"height and width must be multiples of {unit} pixels, {got}")
    if transformer.use_learned_positional_embeddings and size != own:
        raise ValueError(
            f"this model has learned positions for {own[0]} x {own[1]} pixels only, {got}; "
            "leave height and width at 0"
        )
    if transformer.patch_size_t is not None and (size[0] > own[0] or size[1] > own[1]):
        raise ValueError(
            f"this model's rotary positions end at {own[0]} x {own[1]} pixels, {got}; "
            "lower height and width"
        )
    return size


def free_view_size(height: int, width: int, own: tuple[int, int], unit: int) -> tuple[int, int]:
    """Return (H, W) in pixels at which a model without a fixed size runs.

    Args:
        height: wanted, pixels; 0 for the published one.
        width: wanted, pixels; 0 for the published one.
        own: the published (H, W).
        unit: pixels per token row and column.

    Raises:
        ValueError: a size that is no whole number of tokens.
    """
    size = (height or own[0], width or own[1])
    if size[0] % unit or size[1] % unit:
        raise ValueError(
            f"height and width must be multiples of {unit} pixels, got {size[0]} x {size[1]}"
        )
    return size


def check_clip_length(num_frames: int, ratio: int, fewest: int) -> None:
    """Refuse clips that a causal autoencoder does not take as they are.

    Args:
        num_frames: length of the clip, video frames.
        ratio: video frames per latent frame after the first.
        fewest: the shortest clip that the model can use, video frames.

    Raises:
        ValueError: with the lengths that would do.
    """
    if num_frames < fewest or (num_frames - 1) % ratio:
        raise ValueError(
            f"num_frames must be 1 plus a multiple of {ratio} and at least {fewest} for this "
            f"model, got {num_frames}"
        )


def only_variant(folder: Path) -> str | None:
    """Return "fp16" where a network's folder holds weights of that variant only, else None."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def torch_dtype(name: str) -> torch.dtype:
    """Return the type behind "float32" or "bfloat16".

    Raises:
        ValueError: any other name.
    """
    check_in(name, _DTYPES, "dtype")
    return _DTYPES[name]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep diffusers and transformers from drawing progress bars; restores them on exit.

    Hides one warning too: diffusers calls `torch_dtype` outdated as of 0.42, but its older
    releases that we accept know no other name.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = [
        m for m in (diffusers_logging, transformers_logging) if m.is_progress_bar_enabled()
    ]
    for library in libraries:
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch_dtype", category=FutureWarning)
            yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
