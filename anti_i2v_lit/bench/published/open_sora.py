"""Open-Sora 1.2 at full size with random weights."""

from __future__ import annotations

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from anti_i2v_lit.bench.published.base import Size, made_in_place, random_prompts, settle
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.surrogates.open_sora.loading import OpenSoraParts
from anti_i2v_lit.surrogates.open_sora.stdit3 import STDiT3
from anti_i2v_lit.surrogates.open_sora.surrogate import OpenSoraSurrogate, OpenSoraSurrogateConfig
from anti_i2v_lit.surrogates.open_sora.temporal_vae import TemporalVAE
from anti_i2v_lit.surrogates.open_sora.video_vae import SpatialVAE, VideoVAE


def open_sora_1_2(size: Size) -> Surrogate:
    """hpcai-tech/OpenSora-STDiT-v3 and hpcai-tech/OpenSora-VAE-v1.2."""
    with made_in_place(size):
        denoiser = STDiT3(
            depth=size.num_blocks or 28,
            hidden_size=1152,
            num_heads=16,
            caption_channels=4096,
            model_max_length=300,
            in_channels=4,
            patch_size=(1, 2, 2),
            input_sq_size=512,
            qk_norm=True,
            pred_sigma=True,
        )
        plane = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        vae = VideoVAE(
            SpatialVAE(plane, 4),
            TemporalVAE(),
            shift=[-0.10, 0.34, 0.27, 0.98],
            scale=[3.85, 2.32, 2.33, 3.06],
            micro_frame_size=17,
        )
    settle(size.dtype, denoiser, vae)
    config = OpenSoraSurrogateConfig(
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        activation_checkpointing=size.activation_checkpointing,
    )
    prompts = random_prompts(4097, 300, size.dtype, marked=True)
    return OpenSoraSurrogate(config, OpenSoraParts(denoiser=denoiser, vae=vae, prompts=prompts))
