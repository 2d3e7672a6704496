"""How many denoising steps a generator takes that is not told how many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anti_i2v_lit.checkpoints import PACKAGED
from anti_i2v_lit.generators import GENERATORS


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_a_packaged_model_takes_five(name: str) -> None:
    source = torch.Generator().manual_seed(0)
    own, five, six = (
        GENERATORS.build({"name": name, "path": "embedded", "device": "cpu", **steps})
        for steps in ({}, {"num_inference_steps": 5}, {"num_inference_steps": 6})
    )
    photos = torch.rand(1, 3, *own.view_size, generator=source)
    clips = [g.generate(photos, ["a person is talking"], [0]) for g in (own, five, six)]
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])


def test_another_folder_takes_as_many_as_its_pipeline(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = GENERATORS.build(
        {"name": "cogvideox", "path": str(tiny_checkpoint), "num_frames": 9}
    )
    calls = []
    network = generator.pipeline.transformer
    monkeypatch.setattr(network, "forward", _counted(network.forward, calls))
    photos = torch.full((1, 3, *generator.view_size), 0.5)
    generator.generate(photos, ["a person is talking"], [0])
    assert len(calls) == 50  # the default of diffusers' pipeline


def _counted(forward, calls):
    def counted(*words, **named):
        calls.append(1)
        return forward(*words, **named)

    return counted
