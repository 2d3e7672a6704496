"""The U-Net in the form that suits a CPU predicts what the original predicts."""

from __future__ import annotations

import pytest
import torch

from anti_i2v_lit.generators.dynamicrafter_frames import FewFramesAttention, TimeConv, simplify
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_parts


@pytest.mark.parametrize("frames", [1, 3, 8, 10])
def test_predictions_are_those_of_the_original(frames: int) -> None:
    theirs, ours = tiny_parts().unet.eval(), tiny_parts().unet.eval()
    simplify(ours)
    source = torch.Generator().manual_seed(frames)
    x = torch.randn(2, 8, frames, 8, 8, generator=source)
    context = torch.randn(2, 77 + 16 * frames, 16, generator=source)
    steps = torch.tensor([10, 900])
    with torch.no_grad():
        expected, found = theirs(x, steps, context), ours(x, steps, context)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    kinds = [type(module) for module in ours.modules()]
    assert kinds.count(TimeConv) > 8 and kinds.count(FewFramesAttention) > 8
    assert not any(isinstance(module, torch.nn.Conv3d) for module in ours.modules())
