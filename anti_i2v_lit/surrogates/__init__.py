"""WHAT we differentiate through."""

from anti_i2v_lit.registry import Registry
from anti_i2v_lit.surrogates.base import Surrogate

SURROGATES: Registry[Surrogate] = Registry(
    "surrogate",
    "anti_i2v_lit.surrogates.base:Surrogate",
    {
        "cogvideox": "anti_i2v_lit.surrogates.cogvideox:CogVideoXSurrogate",
        "dynamicrafter": "anti_i2v_lit.surrogates.dynamicrafter:DynamiCrafterSurrogate",
        "ltx": "anti_i2v_lit.surrogates.ltx:LTXSurrogate",
        "open_sora": "anti_i2v_lit.surrogates.open_sora.surrogate:OpenSoraSurrogate",
        "svd": "anti_i2v_lit.surrogates.svd:SVDSurrogate",
        "wan_2_1": "anti_i2v_lit.surrogates.wan:Wan21Surrogate",
        "wan_2_2": "anti_i2v_lit.surrogates.wan:Wan22Surrogate",
    },
)
