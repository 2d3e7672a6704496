"""LPIPS with the bundled AlexNet; nothing is downloaded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lpips
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BACKBONE = Path(__file__).with_name("lpips_alexnet_fp16.safetensors")
_DRAWS = (nn.init.kaiming_uniform_, nn.init.uniform_)  # of linear layers and convolutions
MIN_SIDE = 64  # pixels; AlexNet's last convolution has nothing to see below about this size


def load_lpips(backbone: Path = BACKBONE) -> lpips.LPIPS:
    """LPIPS version 0.1 with AlexNet (Zhang et al., CVPR 2018), frozen, float32, in eval mode.

    The linear layers come with the `lpips` package; the backbone's float16 values are widened,
    which changes published example distances by less than 1e-4.

    Args:
        backbone: safetensors file with torchvision's names `features.N.weight`.

    Raises:
        ValueError: the file is missing or does not hold AlexNet's convolutions.
    """
    if not backbone.is_file():
        raise ValueError(f"LPIPS backbone: expected a file, got {backbone}; reinstall the package")
    with _NothingDrawn(), warnings.catch_warnings():
        # torchvision's deprecation note concerns an argument that lpips passes.
        warnings.simplefilter("ignore", category=UserWarning)
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    source, state = load_file(backbone), network.net.state_dict()
    for name in state:
        found = re.fullmatch(r"slice\d+\.(\d+)\.(weight|bias)", name)
        assert found is not None, f"lpips changed its layer names: {name}"
        key = f"features.{found[1]}.{found[2]}"
        if key not in source or source[key].shape != state[name].shape:
            raise ValueError(f"{backbone}: expected {key} of shape {tuple(state[name].shape)}")
        state[name] = source[key].float()
    network.net.load_state_dict(state)
    return network.requires_grad_(False).eval()


class _NothingDrawn(TorchFunctionMode):
    """New layers keep the memory they find: AlexNet would draw 61 million numbers, to be replaced.

    So the caller's random state is left alone as well.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _DRAWS:
            return options["tensor"]
        return func(*args, **options)


def lpips_distance(network: lpips.LPIPS, first: Tensor, second: Tensor) -> Tensor:
    """LPIPS per pair, [B], of images [B, 3, H, W] in [0, 1], differentiable everywhere.

    The same numbers as `network(first, second, normalize=True)`, except that its root has an
    infinite slope where all channels are zero (flat black areas) and this one does not. Images
    with a side below 64 pixels are enlarged bilinearly to that side first.
    """
    return lpips_between(network, *(lpips_features(network, x) for x in (first, second)))


def lpips_features(network: lpips.LPIPS, images: Tensor) -> tuple[Tensor, ...]:
    """What LPIPS compares of images [B, 3, H, W] in [0, 1]: a map [B, C, h, w] per layer.

    Channels have length 1 at every place, 0 where all are zero.
    """
    maps = network.net(network.scaling_layer(2 * _enlarged(images) - 1))
    return tuple(F.normalize(each, dim=1, eps=1e-10) for each in maps)


def lpips_between(
    network: lpips.LPIPS, first: Sequence[Tensor], second: Sequence[Tensor]
) -> Tensor:
    """LPIPS per pair, [B], of features from `lpips_features`; one image may stand for many."""
    total = torch.zeros(len(first[0]), device=first[0].device)
    for ours, theirs, linear in zip(first, second, network.lins, strict=True):
        total = total + linear((ours - theirs).square()).mean(dim=(1, 2, 3))
    return total


def _enlarged(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    if min(height, width) >= MIN_SIDE:
        return images
    size = (max(height, MIN_SIDE), max(width, MIN_SIDE))
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
