import pytest
import torch

from anti_i2v_lit.surrogates.embedded.frame_autoencoder import (
    AutoencoderShape,
    FrameAutoencoder,
    to_cogvideox,
)

TINY = AutoencoderShape(block_channels=(8, 8, 16), latent_channels=4, norm_groups=4, sample_size=32)


def make(shape: AutoencoderShape = TINY) -> FrameAutoencoder:
    torch.manual_seed(0)
    return FrameAutoencoder(shape).eval()


@torch.no_grad()
def test_twin_encodes_and_decodes_single_frames_as_the_3d_model_does() -> None:
    model = make()
    vae = to_cogvideox(model)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, logvar = model.encode(image)
    posterior = vae.encode(image[:, :, None]).latent_dist
    torch.testing.assert_close(posterior.mean[:, :, 0], mean)
    torch.testing.assert_close(posterior.logvar[:, :, 0], logvar)
    latent = torch.randn_like(mean)
    torch.testing.assert_close(vae.decode(latent[:, :, None]).sample[:, :, 0], model.decode(latent))


@torch.no_grad()
def test_every_kernel_sits_in_the_last_temporal_tap() -> None:
    model = make()
    three, two = to_cogvideox(model).state_dict(), model.state_dict()
    spread = [name for name, value in three.items() if value.ndim == 5 and value.shape[2] > 1]
    assert spread
    for name in spread:
        assert not three[name][:, :, :-1].any()
        assert torch.equal(three[name][:, :, -1], two[name])


@torch.no_grad()
def test_a_still_clip_decodes_to_the_same_frame_five_times() -> None:
    model = make()
    latent = torch.randn(1, 4, 8, 8)
    clip = to_cogvideox(model).decode(latent[:, :, None].expand(-1, -1, 5, -1, -1)).sample
    assert clip.shape == (1, 3, 5, 32, 32)
    for frame in clip.unbind(2):
        torch.testing.assert_close(frame, model.decode(latent), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"block_channels": (16,)},
        {"block_channels": (12, 16)},
        {"latent_channels": 0},
        {"sample_size": 100},
    ],
)
def test_impossible_shapes_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="arrived"):
        AutoencoderShape(**bad)  # type: ignore[arg-type]
