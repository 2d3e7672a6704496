"""Tar shards in the layout of WebDataset: building, reading, writing back."""

from anti_i2v_lit.data.shards.sources import SampleSource
from anti_i2v_lit.registry import Registry

SAMPLE_SOURCES: Registry[SampleSource] = Registry(
    "sample_source",
    "anti_i2v_lit.data.shards.sources:SampleSource",
    {
        "celebv_text": "anti_i2v_lit.data.shards.celebv_text:CelebVText",
        "photos": "anti_i2v_lit.data.shards.photo_folder:PhotoFolder",
        "ucf101": "anti_i2v_lit.data.shards.ucf101:Ucf101",
    },
)
