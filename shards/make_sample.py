"""Make the sample shard: `python shards/make_sample.py DIR`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

from anti_i2v_lit.cli.main import main

CAPTIONS = {"astronaut": "an astronaut in an orange suit", "face": "the face of an astronaut"}


def make(out: Path) -> int:
    """Two crops of NASA's portrait of Eileen Collins, as PNG, with captions."""
    whole = Image.fromarray(data.astronaut())
    crops = {"astronaut": (0, 0, 512, 512), "face": (128, 0, 320, 192)}
    with tempfile.TemporaryDirectory() as folder:
        for name, box in crops.items():
            whole.crop(box).resize((192, 192)).save(Path(folder, f"{name}.png"), optimize=True)
            Path(folder, f"{name}.txt").write_text(CAPTIONS[name] + "\n", encoding="utf-8")
        return main(["shard", folder, "--out", str(out), "prefix=sample"])


if __name__ == "__main__":
    sys.exit(make(Path(sys.argv[1])))
