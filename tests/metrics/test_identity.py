"""Identity figures of clips whose right answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.frames import FramesConfig
from anti_i2v_lit.metrics.identity import IdentityConfig, IdentitySimilarity, MissingFaces
from anti_i2v_lit.metrics.requirements import WeightsFile

POINTS = torch.tensor([[20.0, 20], [44, 20], [32, 32], [22, 44], [42, 44]])


class MeanColour(FaceEmbedder):
    """A "face network" whose descriptor is the crop's mean colour plus dlib's centre."""

    template = tuple(map(tuple, POINTS.tolist()))
    crop_px = 64
    centre_name = "dlib"

    def __init__(self) -> None:
        self._network = nn.Identity()

    @property
    def network(self) -> nn.Module:
        return self._network

    def _descriptors(self, crops: Tensor) -> Tensor:
        from safetensors.torch import load_file

        from anti_i2v_lit.metrics.face_embedder import CENTRES

        colour = crops.mean(dim=(2, 3))
        padded = torch.nn.functional.pad(colour, (0, 125))
        return padded + load_file(CENTRES)["dlib"]


class ColourIdentity(IdentitySimilarity):
    direction, unit, source = "lower", "cosine", "test"
    weights_file = WeightsFile(name=__file__, how_to_get="")

    @classmethod
    def _load(cls, weights: str) -> FaceEmbedder:
        return MeanColour()


def clip(*colours: tuple[float, float, float], missing: tuple[int, ...] = ()) -> GeneratedClip:
    """One flat frame per colour, beside a red photo; some frames without a face."""
    frames = torch.tensor(colours)[:, :, None, None].expand(-1, -1, 64, 64)
    landmarks = POINTS.repeat(len(colours), 1, 1)
    landmarks[list(missing)] = torch.nan
    photo = torch.tensor([1.0, 0, 0])[:, None, None].expand(-1, 64, 64)
    return GeneratedClip(
        key="a", photo=photo, frames=frames, photo_landmarks=POINTS, frame_landmarks=landmarks
    )


RED, GREEN, BOTH = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0)


def similarity(subject: GeneratedClip, **settings: str) -> float:
    metric = ColourIdentity(IdentityConfig(weights=__file__, **settings))
    metric.update([subject])
    return metric.compute().item()


def test_mean_cosine_over_frames() -> None:
    assert similarity(clip(RED, GREEN, BOTH)) == pytest.approx((1 + 0 + 0.5**0.5) / 3, abs=1e-4)


def test_first_and_last_frame() -> None:
    subject = clip(RED, BOTH, GREEN)
    assert similarity(subject, frames="first") == pytest.approx(1, abs=1e-4)
    assert similarity(subject, frames="last") == pytest.approx(0, abs=1e-4)


def test_missing_faces_are_dropped_or_count_as_strangers() -> None:
    subject = clip(RED, RED, RED, BOTH, missing=(1, 2))
    present = 1 + 0.5**0.5
    assert similarity(subject) == pytest.approx(present / 2, abs=1e-4)
    assert similarity(subject, missing="zero") == pytest.approx(present / 4, abs=1e-4)


def test_a_clip_without_faces_is_undefined_or_zero() -> None:
    subject = clip(RED, RED, missing=(0, 1))
    assert math.isnan(similarity(subject))
    assert similarity(subject, missing="zero") == 0
    faceless = GeneratedClip(
        key="a", photo=subject.photo, frames=subject.frames, frame_landmarks=subject.frame_landmarks
    )
    assert math.isnan(similarity(faceless, missing="zero"))


def test_undefined_clips_are_listed_but_not_averaged() -> None:
    metric = ColourIdentity(IdentityConfig(weights=__file__))
    seen, lost = clip(BOTH), clip(RED, missing=(0,))
    lost = GeneratedClip(**{**vars(lost), "key": "b"})
    metric.update([seen, lost])
    assert metric.compute().item() == pytest.approx(0.5**0.5, abs=1e-4)
    values = metric.per_photo()
    assert list(values) == ["a", "b"] and math.isnan(values["b"])


@pytest.mark.parametrize(("choice", "share"), [("all", 0.5), ("first", 0.0), ("last", 1.0)])
def test_share_of_frames_without_a_face(choice: str, share: float) -> None:
    metric = MissingFaces(FramesConfig(frames=choice))
    metric.update([clip(RED, RED, RED, RED, missing=(1, 3))])
    assert metric.compute().item() == share


def test_a_clip_that_nobody_searched_for_faces_is_refused() -> None:
    subject = clip(RED)
    unsearched = GeneratedClip(key="a", photo=subject.photo, frames=subject.frames)
    with pytest.raises(ValueError, match="run a face detector"):
        MissingFaces(FramesConfig()).update([unsearched])


def test_values_per_frame_and_what_they_reduce_to() -> None:
    subject = clip(RED, GREEN, BOTH, missing=(1,))
    drop, zero = (
        ColourIdentity(IdentityConfig(weights=__file__, missing=m)) for m in ("drop", "zero")
    )
    values = drop.per_frame(subject)
    assert values.tolist() == pytest.approx([1, math.nan, 0.5**0.5], abs=1e-4, nan_ok=True)
    assert zero.per_frame(subject).tolist() == pytest.approx([1, 0, 0.5**0.5], abs=1e-4)
    assert drop.reduce(values) == drop.score(subject)
    presence = MissingFaces(FramesConfig()).per_frame(subject)
    assert presence.tolist() == [0, 1, 0]


def test_metrics_with_one_network_look_at_a_clip_once_and_at_a_photo_once() -> None:
    calls: list[int] = []

    class CountedColour(MeanColour):
        def _descriptors(self, crops: Tensor) -> Tensor:
            calls.append(len(crops))
            return super()._descriptors(crops)

    class Counting(ColourIdentity):
        @classmethod
        def _load(cls, weights: str) -> FaceEmbedder:
            return CountedColour()

    metrics = [
        Counting(IdentityConfig(weights=__file__, frames=f, missing=m))
        for f in ("all", "first", "last")
        for m in ("drop", "zero")
    ]
    first = GeneratedClip(**{**vars(clip(RED, GREEN)), "photo_key": "p"})
    for metric in metrics:
        metric.update([first])
    assert calls == [1, 2]
    second = GeneratedClip(**{**vars(first), "key": "b", "frames": first.frames.clone()})
    metrics[0].update([second])
    assert calls == [1, 2, 2]


def test_the_face_is_taken_from_the_full_photo_where_there_is_one() -> None:
    subject = clip(GREEN)
    full = torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(-1, 128, 128)
    other = GeneratedClip(**{**vars(subject), "full_photo": full, "photo_landmarks": 2 * POINTS})
    assert similarity(subject) == pytest.approx(0, abs=1e-4)
    assert similarity(other) == pytest.approx(1, abs=1e-4)


def test_a_network_that_fails_is_not_taken_for_a_missing_face() -> None:
    class Broken(MeanColour):
        def _descriptors(self, crops: Tensor) -> Tensor:
            return super()._descriptors(crops) * torch.nan

    class BrokenIdentity(ColourIdentity):
        @classmethod
        def _load(cls, weights: str) -> FaceEmbedder:
            return Broken()

    metric = BrokenIdentity(IdentityConfig(weights=__file__, missing="zero"))
    with pytest.raises(ValueError, match="Broken gave a similarity that is not a number"):
        metric.update([clip(RED)])


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown missing 'skip'"):
        IdentityConfig(missing="skip")
    with pytest.raises(ValueError, match="unknown frames 'middle'"):
        IdentityConfig(frames="middle")


def test_the_digest_of_a_face_network_follows_its_weights_and_centre() -> None:
    def made(weight: float, centre: str = "dlib") -> MeanColour:
        embedder = MeanColour()
        embedder._network = nn.Linear(2, 1)
        torch.nn.init.constant_(embedder._network.weight, weight)
        torch.nn.init.zeros_(embedder._network.bias)
        embedder.centre_name = centre  # type: ignore[misc]
        return embedder

    assert made(1.0).digest == made(1.0).digest
    assert len({made(1.0).digest, made(1.001).digest, made(1.0, "hse").digest}) == 3
