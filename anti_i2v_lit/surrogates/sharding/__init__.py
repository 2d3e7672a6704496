"""Frozen weights of a surrogate divided over ranks, and gathered block by block when they run."""

from __future__ import annotations

from anti_i2v_lit.registry import Registry
from anti_i2v_lit.surrogates.sharding.base import Sharder

SHARDERS: Registry[Sharder] = Registry(
    "strategy",
    "anti_i2v_lit.surrogates.sharding.base:Sharder",
    {
        "zero3": "anti_i2v_lit.surrogates.sharding.zero3:Zero3",
        "zero3_offload": "anti_i2v_lit.surrogates.sharding.zero3:Zero3Offload",
        "fsdp2": "anti_i2v_lit.surrogates.sharding.fsdp2:FullyShard",
    },
)
