"""DynamiCrafter: a latent 3D U-Net that is told the photo twice, as latents and as CLIP tokens.

Xing et al. 2023, "DynamiCrafter: Animating Open-domain Images with Video Diffusion Priors",
arXiv 2310.12190. The networks here bear the parameter names of the published checkpoints.
"""

from anti_i2v_lit.surrogates.dynamicrafter.adapter import DynamiCrafterSurrogate
from anti_i2v_lit.surrogates.dynamicrafter.first_stage import FirstStage
from anti_i2v_lit.surrogates.dynamicrafter.resampler import Resampler
from anti_i2v_lit.surrogates.dynamicrafter.unet import UNet

__all__ = ["DynamiCrafterSurrogate", "FirstStage", "Resampler", "UNet"]
