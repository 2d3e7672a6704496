"""WHERE a photo may change."""

from anti_i2v_lit.registry import Registry
from anti_i2v_lit.spaces.base import PerturbationSpace

SPACES: Registry[PerturbationSpace] = Registry(
    "space",
    "anti_i2v_lit.spaces.base:PerturbationSpace",
    {
        "dual": "anti_i2v_lit.spaces.dual:DualSpace",
        "lab_chroma": "anti_i2v_lit.spaces.lab_chroma:LabChromaSpace",
        "low_frequency": "anti_i2v_lit.spaces.low_frequency:LowFrequencySpace",
        "rgb": "anti_i2v_lit.spaces.rgb:RgbSpace",
    },
)
