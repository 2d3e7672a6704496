"""Open-Sora 1.2: rectified flow over spatial and temporal transformer blocks.

Zheng et al. 2024, "Open-Sora: Democratizing Efficient Video Production for All", arXiv 2412.20404.
The networks here bear the parameter names of the published checkpoints.
"""

from anti_i2v_lit.surrogates.open_sora.stdit3 import STDiT3
from anti_i2v_lit.surrogates.open_sora.temporal_vae import TemporalVAE

__all__ = ["STDiT3", "TemporalVAE"]
