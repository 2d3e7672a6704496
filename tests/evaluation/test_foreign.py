import os
from pathlib import Path

import pytest
import torch
from skimage.data import astronaut
from torch import nn

from anti_i2v_lit.evaluation.foreign import ForeignEncoder

MODELS = Path(os.environ.get("ANTI_I2V_DATA", "../shared/data")) / "models"
needs_models = pytest.mark.skipif(
    not (MODELS / "taef2_encoder.pth").is_file(), reason=f"no TAEF2 weights in {MODELS}"
)


class Block(nn.Module):
    """The published decoder block, written apart from the encoder under test."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()

        def conv() -> nn.Conv2d:
            return nn.Conv2d(64, 64, 3, padding=1)

        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        if normalised:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(),
                nn.Conv2d(256, 64, 1, bias=False),
            )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pool(x) if hasattr(self, "pool") else x
        return (self.conv(x) + x).relu()


def decoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Identity(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    for level in range(3):
        layers += [Block(level == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]
    layers += [Block(False), nn.Conv2d(64, 3, 3, padding=1)]
    network = nn.Sequential(*layers)
    state = torch.load(MODELS / "taef2_decoder.pth", map_location="cpu", weights_only=True)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval()


@needs_models
@torch.no_grad()
def test_the_published_decoder_gives_the_photo_back() -> None:
    photo = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    latents = ForeignEncoder(MODELS / "taef2_encoder.pth").encode(photo)
    assert latents.shape == (1, 32, 64, 64)
    clamped = (latents / 3).tanh() * 3
    error = (decoder()(clamped).clamp(0, 1) - photo).square().mean()
    assert -10 * error.log10().item() == pytest.approx(31.2, abs=0.3)


@needs_models
def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        ForeignEncoder(MODELS / "taef2_encoder.pth").encode(torch.rand(1, 3, 20, 24))


def test_missing_and_wrong_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="madebyollin/taesd"):
        ForeignEncoder(tmp_path / "taef2_encoder.pth")
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not TAEF2"):
        ForeignEncoder(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="not TAEF2"):
        ForeignEncoder(tmp_path / "text.pth")


def test_the_encoder_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), tmp_path / "taesd_encoder.pth")
    with pytest.raises(ValueError, match="32 channels, got 4"):
        ForeignEncoder(tmp_path / "taesd_encoder.pth")
