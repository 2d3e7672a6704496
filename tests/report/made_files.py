"""Files of a made-up outcome: photos, cloaks and clips of skimage's astronaut and cat."""

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from skimage import data

from anti_i2v_lit.evaluation.facts import KeptClip


def picture(index, size=192):
    base = data.astronaut() if index % 2 == 0 else data.chelsea()[:, 60:360]
    return np.asarray(Image.fromarray(base).resize((size, size)))


def write_files(folder, keys, names, frames, generators, purifications):
    """Photos, cloaks and clips below `folder`; returns the kept clips."""
    random = np.random.default_rng(1)
    kept = []
    (folder / "clips").mkdir(exist_ok=True)
    for index, key in enumerate(keys):
        photo = picture(index)
        Image.fromarray(photo).save(folder / f"photo{index}.png")
        for place in range(len(names)):
            noise = random.integers(-8, 9, photo.shape)
            cloak = (photo.astype(int) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(cloak).save(folder / f"cloak{index}_{place}.png")
        for generator in generators:
            for purification in purifications:
                for place, name in enumerate(["clean", *names]):
                    path = f"clips/{len(kept)}.safetensors"
                    save_file({"frames": clip(index, frames, place)}, folder / path)
                    kept.append(
                        KeptClip(
                            photo=key,
                            protection=name,
                            generator=generator,
                            seed=0,
                            purification=purification,
                            prompt="a person is talking",
                            path=path,
                        )
                    )
    return tuple(kept)


def clip(index, frames, place):
    """The picture moves to the side; a cloak's falls apart as it goes on."""
    small = np.asarray(Image.fromarray(picture(index)).resize((128, 128))).astype(np.float64)
    random = np.random.default_rng(place)
    found = []
    for t in range(frames):
        shown = np.roll(small, 2 * t, axis=1)
        if place:
            noise = random.normal(0, 60, (16, 16, 3)).repeat(8, 0).repeat(8, 1)
            shown = shown + noise * min(1.0, (t + 1) / 6)
        found.append(shown.clip(0, 255).astype(np.uint8))
    return np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2))
