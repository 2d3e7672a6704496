"""WHY a photo changes."""

from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.registry import Registry

OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    "anti_i2v_lit.objectives.base:Objective",
    {
        "clip_distance": "anti_i2v_lit.objectives.clip_distance:ClipDistance",
        "denoising": "anti_i2v_lit.objectives.denoising:DenoisingLoss",
        "ira_denoiser": "anti_i2v_lit.objectives.anchor:DenoiserAnchor",
        "ira_encoder": "anti_i2v_lit.objectives.anchor:EncoderAnchor",
        "ira_latent": "anti_i2v_lit.objectives.anchor:LatentAnchor",
        "irc": "anti_i2v_lit.objectives.collapse:RepresentationCollapse",
        "lpips": "anti_i2v_lit.objectives.perceptual:PerceptualDistance",
    },
)
