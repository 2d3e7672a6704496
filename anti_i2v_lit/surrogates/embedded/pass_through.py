"""Pass-through initialisation of a first stage: it starts out as a coarse Haar transform.

Trained from the usual initialisation, an autoencoder first spends hundreds of steps on learning to
pass on the colours at all. So that is written into the initial weights: the residual branches
start quiet, and along the shortcuts every change of resolution on the way down takes the Haar
transform of 2 x 2 places, of which the strongest bands are carried on. The way up is nearest
neighbour and a 3 x 3 convolution, which cannot invert that exactly; its kernels interpolate the
sums and differentiate the differences. Normalisation and activation before the last layers are
bypassed by pairs of opposite channels, ``silu(x) - silu(-x) = x``, beside two constant channels
that keep the scale of their group nearly fixed.

Every weight is trained afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage

# Opponent colours, orthonormal: brightness, red against blue, green against both.
_COLOURS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [0.5, -1.0, 0.5]])
_OPPONENT = _COLOURS / _COLOURS.norm(dim=1, keepdim=True)

# A carried channel is a colour (Y, U, V) and, from the first halving on, its bands: S for the sum,
# H and V for the horizontal and vertical difference, D for the diagonal one.
_CARRIED: tuple[tuple[str, ...], ...] = (
    ("Y", "U", "V"),
    tuple(colour + band for band in "SHVD" for colour in "YUV"),
    (
        *(f"{colour}S{band}" for band in "SHVD" for colour in "YUV"),
        *(f"Y{first}{band}" for first in "HV" for band in "SHV"),
    ),
    (
        *("YSSS", "USSS", "VSSS", "YSSH", "YSSV", "YSSD", "USSH", "USSV", "VSSH", "VSSV"),
        *("YSHS", "YSVS", "YSHH", "YSHV", "YSVH", "YSVV"),
    ),
)
# Standard deviation of each latent, in the order above, over crops of portraits in [-1, 1].
_DEVIATIONS = (6.6, 2.2, 0.8, 1.5, 1.2, 0.6, 0.4, 0.3, 0.2, 0.15, 0.7, 0.55, 0.65, 0.3, 0.3, 0.55)
_QUIET = 0.2  # share of the usual weights that residual branches start with
_ANCHOR = 2.0  # size of the constant channels beside the latents, deviations of a latent
_COLOUR_ANCHOR = 1.0  # the same beside the colours of the last layer, their values run to 1.7


def _haar(band: str) -> Tensor:
    """Orthonormal 2 x 2 kernel of a band."""
    plain, change = torch.tensor([0.5, 0.5]), torch.tensor([0.5, -0.5])
    rows = change if band in "VD" else plain
    columns = change if band in "HD" else plain
    return 2.0 * torch.outer(rows, columns)


def _rise(band: str) -> Tensor:
    """3 x 3 kernel after nearest-neighbour doubling that puts a band back approximately."""
    plain, change = torch.tensor([0.25, 0.5, 0.25]), torch.tensor([-0.5, 0.0, 0.5])
    rows = change if band in "VD" else plain
    columns = change if band in "HD" else plain
    return 0.5 * torch.outer(rows, columns)


@torch.no_grad()
def pass_through_init(model: FirstStage) -> None:
    """Initialise a first stage as described above.

    Args:
        model: Four levels, 16 latent channels, one residual block a level, at least 12, 12, 18 and
            32 channels in its levels, without attention but in the middle.

    Raises:
        ValueError: Another layout.
    """
    # Type checkers see the layers of a container as modules of any kind.
    decoder: Any = model.decoder
    squeeze, levels = model.post_quant_conv, len(model.encoder.down)
    if decoder is None or squeeze is None or levels != 4 or squeeze.in_channels != 16:
        raise ValueError(
            f"{levels} levels arrived; expected a whole first stage of four levels with 16 "
            "latent channels; change the sizes."
        )
    _calm(model)
    _build_encoder(model)
    scales = torch.tensor(_DEVIATIONS)
    _only(squeeze)[:, :, 0, 0] = torch.diag(scales)
    _eye(decoder.conv_in)
    for level in (3, 2, 1):
        conv = decoder.up[level].upsample.conv
        rows = _CARRIED[level - 1]
        if level == 1:
            _colour_pairs(conv, decoder.norm_out.num_groups)
            continue
        _clear(conv, len(rows))
        for row, name in enumerate(rows):
            for column, source in enumerate(_CARRIED[level]):
                if source[:-1] == name:
                    conv.weight[row, column] = _rise(source[-1])
    _colours_out(decoder.conv_out, decoder.norm_out.num_groups)


def _calm(model: nn.Module) -> None:
    """Quiet residual branches; shortcuts that change the width carry the first channels on."""
    for name, module in model.named_modules():
        if name.endswith(("conv2", "attn_1.proj_out")):
            assert isinstance(module, nn.Conv2d) and module.bias is not None
            module.weight *= _QUIET
            module.bias.zero_()
        elif name.endswith("nin_shortcut"):
            assert isinstance(module, nn.Conv2d)
            _eye(module)


def _only(conv: nn.Conv2d) -> Tensor:
    """The weight of a convolution, all zero, bias too."""
    assert conv.bias is not None
    conv.bias.zero_()
    return conv.weight.zero_()


def _clear(conv: nn.Conv2d, rows: int) -> None:
    """Empty the rows that carry; the others keep their random weights."""
    assert conv.bias is not None
    conv.weight[:rows] = 0.0
    conv.bias[:rows] = 0.0


def _eye(conv: nn.Conv2d) -> None:
    """Copy each incoming channel to the outgoing one of its number."""
    rows = min(conv.in_channels, conv.out_channels)
    _clear(conv, rows)
    middle = conv.kernel_size[0] // 2
    conv.weight[:rows, :rows, middle, middle] = torch.eye(rows)


def _build_encoder(model: FirstStage) -> None:
    encoder: Any = model.encoder
    _clear(encoder.conv_in, 3)
    encoder.conv_in.weight[:3, :, 1, 1] = _OPPONENT
    for level in range(3):
        conv = encoder.down[level].downsample.conv
        sources, rows = _CARRIED[level], _CARRIED[level + 1]
        _clear(conv, len(rows))
        for row, name in enumerate(rows):
            conv.weight[row, sources.index(name[:-1]), :2, :2] = _haar(name[-1])
    _latents_out(model, encoder.down[3].block[0].nin_shortcut)


def _latents_out(model: FirstStage, shortcut: nn.Conv2d) -> None:
    """Two latents a group, each with its opposite, and two constants; then their differences."""
    last, groups = model.encoder.conv_out, model.encoder.norm_out.num_groups
    size, latents = shortcut.out_channels // groups, len(_DEVIATIONS)
    each = latents // groups
    weight = shortcut.weight
    assert shortcut.bias is not None and last.bias is not None
    last.weight *= 0.1
    last.weight[:latents] = 0.0
    last.bias[:latents] = 0.0
    for group in range(groups):
        first = group * size
        weight[first : first + 2 * each + 2] = 0.0
        shortcut.bias[first : first + size] = 0.0
        shortcut.bias[first + 2 * each] = _ANCHOR
        shortcut.bias[first + 2 * each + 1] = -_ANCHOR
        for place in range(each):
            latent = group * each + place
            for sign, row in ((1.0, first + 2 * place), (-1.0, first + 2 * place + 1)):
                weight[row, latent] = sign / _DEVIATIONS[latent]
                last.weight[latent, row, 1, 1] = sign
    model.quant_conv.weight[:latents] = 0.0
    model.quant_conv.weight[:latents, :latents, 0, 0] = torch.eye(latents)
    assert model.quant_conv.bias is not None
    model.quant_conv.bias[:latents] = 0.0


def _colour_pairs(conv: nn.Conv2d, groups: int) -> None:
    """The finest convolution on the way up: a colour, its opposite and two constants a group."""
    size = conv.out_channels // groups
    _clear(conv, 3 * size)
    assert conv.bias is not None
    for group, colour in enumerate("YUV"):
        first = group * size
        for column, source in enumerate(_CARRIED[1]):
            if source[:-1] == colour:
                conv.weight[first, column] = _rise(source[-1])
                conv.weight[first + 1, column] = -_rise(source[-1])
        conv.bias[first + 2], conv.bias[first + 3] = _COLOUR_ANCHOR, -_COLOUR_ANCHOR


def _colours_out(conv: nn.Conv2d, groups: int) -> None:
    """Differences of the pairs, back from opponent colours to red, green and blue."""
    size = conv.in_channels // groups
    weight = _only(conv)
    for group in range(3):
        scale = 0.9 * _COLOUR_ANCHOR
        weight[:, group * size, 1, 1] = scale * _OPPONENT[group]
        weight[:, group * size + 1, 1, 1] = -scale * _OPPONENT[group]
