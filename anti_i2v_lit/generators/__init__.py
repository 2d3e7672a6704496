"""Black-box image-to-video pipelines, for evaluation."""

from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.registry import Registry

GENERATORS: Registry[VideoGenerator] = Registry(
    "generator",
    "anti_i2v_lit.generators.base:VideoGenerator",
    {
        "cogvideox": "anti_i2v_lit.generators.cogvideox:CogVideoXGenerator",
        "dynamicrafter": "anti_i2v_lit.generators.dynamicrafter:DynamiCrafterGenerator",
        "ltx": "anti_i2v_lit.generators.ltx:LTXGenerator",
        "open_sora": "anti_i2v_lit.generators.open_sora:OpenSoraGenerator",
        "svd": "anti_i2v_lit.generators.svd:SVDGenerator",
        "wan_2_1": "anti_i2v_lit.generators.wan:Wan21Generator",
        "wan_2_2": "anti_i2v_lit.generators.wan:Wan22Generator",
    },
)
