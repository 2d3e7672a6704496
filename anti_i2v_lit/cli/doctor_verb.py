"""`anti-i2v doctor`: what this machine can do, and what is missing, with the remedy."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable

PACKAGES = (
    "torch", "torchvision", "lightning", "diffusers", "transformers", "deepspeed", "kornia",
    "lpips", "open_clip_torch", "webdataset", "omegaconf", "tensorboard", "pillow", "pillow-heif",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Run every check; 2 if one failed."""
    del arguments
    print(f"python        {sys.version.split()[0]} on {platform.platform()}")
    missing = 0
    for name in PACKAGES:
        try:
            print(f"{name:<13} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing += 1
            print(f"{name:<13} MISSING: pip install {name}")
    checks: dict[str, Callable[[], str]] = {
        "devices": _devices,
        "disk": _disk,
        "formats": _formats,
        "face detector": _faces,
        "LPIPS": _lpips,
        "surrogate": _surrogate,
    }
    failed = missing
    for name, check in checks.items():
        try:
            print(f"{name:<13} {check()}")
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failed += 1
            print(f"{name:<13} FAILED: {error}")
    return 2 if failed else 0


def _devices() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [f"{cores} CPU cores"]
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        found.append(f"{torch.cuda.get_device_name(index)} ({memory:.0f} GiB)")
    return ", ".join(found)


def _disk() -> str:
    return f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here"


def _formats() -> str:
    import pillow_heif
    from PIL import features

    avif = "AVIF" if features.check("avif") else "no AVIF (Pillow was built without it)"
    return f"JPEG, PNG, WebP, TIFF, HEIC (libheif {pillow_heif.libheif_version()}), {avif}"


def _faces() -> str:
    import torch
    from skimage.data import astronaut

    from anti_i2v_lit.data.faces import FaceConfig, FaceDetector

    photo = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    faces = FaceDetector(FaceConfig()).detect(photo)
    if len(faces) != 1:
        raise RuntimeError(f"expected one face on the bundled portrait, found {len(faces)}")
    return f"found the bundled portrait's face (score {faces[0].score:.2f})"


def _lpips() -> str:
    from anti_i2v_lit.backbones.lpips_net import load_lpips

    load_lpips()
    return "weights loaded"


def _surrogate() -> str:
    from anti_i2v_lit.settings import default_surrogates
    from anti_i2v_lit.surrogates import SURROGATES

    node = {k: v for k, v in default_surrogates()[0].items() if k != "weight"}
    surrogate = SURROGATES.build(node)
    weights = sum(p.numel() for m in surrogate.modules for p in m.parameters())
    height, width = surrogate.view_size
    return f"embedded model loaded: {weights / 1e6:.1f} M weights, views of {height}x{width}"
