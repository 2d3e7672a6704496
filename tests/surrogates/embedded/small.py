"""A U-Net family small enough for tests."""

from anti_i2v_lit.surrogates.embedded.ldm_autoencoder import LdmShape
from anti_i2v_lit.surrogates.embedded.unet_family import UNetFamily, UNetShape

SMALL_UNET = UNetFamily(
    autoencoder_shape=LdmShape(sample_size=64),
    unet_shape=UNetShape(
        channels=64, context=16, frames=3, image_size=16, image_width=32, image_layers=1
    ),
)
