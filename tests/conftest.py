"""Shared fixtures: a tiny checkpoint in the published layout, photos without real people."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures

from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.settings import Settings, load_settings

ROOM = Path(__file__).parent
# First the rooms with long tests, so that two processes end at about the same time.
LONG_FIRST = ("slurm", "integration", "lit", "surrogates")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests; with `-n`, each process takes the next whole file.

    So what a file's tests share is made once. Files share nothing: every test has its own folders,
    and what measures a process's memory or ends by a signal does so in a process of its own.
    """
    order = {room: place for place, room in enumerate(LONG_FIRST)}
    rooms = {item: os.path.relpath(item.path, ROOM).split(os.sep)[0] for item in items}
    items.sort(key=lambda item: order.get(rooms[item], len(order)))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random weights: 32 px views, 5 frames."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_cogvideox().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real photos, where they are at hand."""
    found = Path(os.environ.get("ANTI_I2V_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not found.is_dir():
        pytest.skip("no real photos: set ANTI_I2V_DATA to a folder of test data")
    return found


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Four small photos in two folders: PNG, JPEG, one of them upright by its EXIF tag."""
    return four_photos(tmp_path / "photos")


def four_photos(folder: Path) -> Path:
    """Make what `photo_folder` is."""
    (folder / "sub").mkdir(parents=True)
    astronaut = Image.fromarray(pictures.astronaut()).resize((96, 96))
    cat = Image.fromarray(pictures.chelsea()).resize((120, 80))
    astronaut.save(folder / "astronaut.png")
    cat.save(folder / "cat.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    astronaut.save(folder / "sub" / "turned.jpg", quality=92, exif=exif)
    Image.fromarray(pictures.coffee()).resize((90, 60)).save(folder / "sub" / "coffee.png")
    return folder


@pytest.fixture
def fast_settings(tiny_checkpoint: Path) -> Settings:
    """Six steps on the tiny checkpoint, saved every two, with an open gate."""
    return load_settings(values=fast_values(tiny_checkpoint))


def fast_values(checkpoint: Path) -> dict[str, object]:
    """Values of `fast_settings`."""
    return {
        "surrogates": [{"name": "cogvideox", "path": str(checkpoint), "weight": 1.0}],
        # Terms that fall within a few plain steps even on random weights.
        "space": {"name": "dual", "low_frequency": {"frequency_share": 0.125, "budget_share": 0.5}},
        "objectives": [
            {"name": "irc"},
            {"name": "ira_denoiser"},
            {"name": "ira_encoder"},
            {"name": "ira_latent", "direction": "away"},
            {"name": "denoising"},
        ],
        "attack": {
            "steps": 6,
            "checkpoint_every": 2,
            "num_draws": 2,
            "num_verification_draws": 1,
            "momentum": 0.0,
        },
        "framing": {"canvas_side_px": 48},
        "gate": {"min_psnr_db": 0, "min_ssim": 0, "max_ciede2000": 0, "max_lpips": 0},
        "trainer": {"accelerator": "cpu"},
    }


def pixels_of(path: Path) -> np.ndarray:
    """Decoded samples of an image file."""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(autouse=True, scope="session")
def one_thread_from_the_start() -> None:
    """Fixtures that several tests share are made before `one_thread` is asked for."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests compare bytes; one thread makes them independent of the machine's load."""
    torch.set_num_threads(1)
