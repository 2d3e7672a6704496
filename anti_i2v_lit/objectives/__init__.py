"""WHY a photo changes."""

from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.registry import Registry

OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    "anti_i2v_lit.objectives.base:Objective",
    {
        "clip_distance": "anti_i2v_lit.objectives.clip_distance:ClipDistance",
        "denoising": "anti_i2v_lit.objectives.denoising:DenoisingLoss",
        "flat_attention": "anti_i2v_lit.objectives.flat_attention:FlatAttention",
        "ira_denoiser": "anti_i2v_lit.objectives.anchor:DenoiserAnchor",
        "ira_encoder": "anti_i2v_lit.objectives.anchor:EncoderAnchor",
        "ira_latent": "anti_i2v_lit.objectives.anchor:LatentAnchor",
        "irc": "anti_i2v_lit.objectives.collapse:RepresentationCollapse",
        "latent_zero": "anti_i2v_lit.objectives.latent_zero:ZeroLatent",
        "lpips": "anti_i2v_lit.objectives.perceptual:PerceptualDistance",
        "sds": "anti_i2v_lit.objectives.score_distillation:ScoreDistillation",
    },
)
