"""WHAT we differentiate through."""

from anti_i2v_lit.registry import Registry
from anti_i2v_lit.surrogates.base import Surrogate

SURROGATES: Registry[Surrogate] = Registry(
    "surrogate",
    "anti_i2v_lit.surrogates.base:Surrogate",
    {
        "cogvideox": "anti_i2v_lit.surrogates.cogvideox:CogVideoXSurrogate",
        "svd": "anti_i2v_lit.surrogates.svd:SVDSurrogate",
    },
)
