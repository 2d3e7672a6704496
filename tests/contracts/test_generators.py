"""Every registered generator keeps the promises of the seam, on its miniature."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.base import VideoGenerator


@pytest.fixture(scope="module", params=GENERATORS.names())
def generator(request: pytest.FixtureRequest) -> VideoGenerator:
    return GENERATORS.load(request.param).tiny()


def photos_of(generator: VideoGenerator, count: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, *generator.view_size, generator=source)


def test_clips_have_frames_in_range(generator: VideoGenerator) -> None:
    clips = generator.generate(photos_of(generator, 2), ["smile", "talk"], [1, 2])
    assert clips.ndim == 5 and clips.shape[0] == 2 and clips.shape[1] > 1
    assert clips.shape[2:] == (3, *generator.view_size)
    assert clips.dtype == torch.float32 and clips.device.type == "cpu"
    assert 0 <= clips.min() < clips.max() <= 1
    assert not clips.requires_grad


def test_clip_does_not_depend_on_its_batch(generator: VideoGenerator) -> None:
    photos, prompts, seeds = photos_of(generator, 3), ["smile", "talk", "nod"], [5, 6, 7]
    together = generator.generate(photos, prompts, seeds)
    for i in (2, 0):
        alone = generator.generate(photos[i : i + 1], [prompts[i]], [seeds[i]])
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)


def test_same_seed_same_clip_and_other_seed_other_clip(generator: VideoGenerator) -> None:
    photo = photos_of(generator, 1)
    first = generator.generate(photo, ["smile"], [5])
    torch.rand(3)  # the global random state must not matter
    assert torch.equal(first, generator.generate(photo, ["smile"], [5]))
    assert not torch.allclose(first, generator.generate(photo, ["smile"], [6]), atol=1e-3)


def test_photo_matters(generator: VideoGenerator) -> None:
    photo = photos_of(generator, 1)
    first = generator.generate(photo, ["smile"], [5])
    other = generator.generate(1 - photo, ["smile"], [5])
    assert not torch.allclose(first, other, atol=1e-4)


def test_nothing_is_printed(generator: VideoGenerator, capfd: pytest.CaptureFixture[str]) -> None:
    generator.generate(photos_of(generator, 1), ["smile"], [5])
    assert capfd.readouterr() == ("", "")


def test_wrong_input_is_refused(generator: VideoGenerator) -> None:
    photos = photos_of(generator, 2)
    with pytest.raises(ValueError, match="1 seeds"):
        generator.generate(photos, ["smile", "talk"], [1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        generator.generate(photos * 255, ["smile", "talk"], [1, 2])
    with pytest.raises(ValueError, match="pixels"):
        generator.generate(photos[..., :-1], ["smile", "talk"], [1, 2])


def test_reconstruction_has_the_photos_shape_and_range(generator: VideoGenerator) -> None:
    photos = photos_of(generator, 2)
    found = generator.reconstruct(photos)
    assert found.shape == photos.shape and found.dtype == torch.float32
    assert 0 <= found.min() < found.max() <= 1


def test_settings_are_a_keyword_only_dataclass(generator: VideoGenerator) -> None:
    fields = dataclasses.fields(type(generator).Config)
    assert fields and all(f.kw_only for f in fields)
