import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from anti_i2v_lit.evaluation import judge as judge_module
from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.evaluation.judge import build_judge, displacement, judge_file, weights_folder
from tests.evaluation.fakes import (
    FACE,
    BrightDetector,
    FadingGenerator,
    fake_judge,
    picture,
)


def tensor(seed: int, side: int = 24) -> torch.Tensor:
    return torch.from_numpy(picture(seed, side)).permute(2, 0, 1).float() / 255


def test_missing_faces_are_dropped_in_one_column_and_zero_in_the_other() -> None:
    photo = tensor(1)
    judge = fake_judge(limit=0.3)
    known = judge.know(photo, photo, [FACE])
    dark = torch.zeros_like(photo)
    clip = torch.stack([photo, dark, photo.flip(0), dark])
    found = judge.judge_clip(known, clip, clip)
    mean = photo.mean(dim=(1, 2)).double().numpy()
    swapped = float(mean @ mean[::-1] / (mean @ mean))
    assert found["fdfr"] == 0.5
    assert found["dlib_first"] == pytest.approx(1.0) == found["dlib_first_zero"]
    assert math.isnan(found["dlib_last"]) and found["dlib_last_zero"] == 0.0
    assert found["dlib_mean"] == pytest.approx((1 + swapped) / 2, abs=1e-5)
    assert found["dlib_mean_zero"] == pytest.approx((1 + swapped) / 4, abs=1e-5)


def test_a_photo_without_a_face_has_no_identity_figures() -> None:
    photo = tensor(1)
    judge = fake_judge()
    found = judge.judge_clip(
        judge.know(photo, photo, []), photo.repeat(2, 1, 1, 1), tensor(2)[None].repeat(2, 1, 1, 1)
    )
    assert all(math.isnan(v) for n, v in found.items() if n.startswith(("dlib", "fdfr")))
    assert math.isfinite(found["photo_lpips"])


def test_fidelity_is_that_of_scikit_image() -> None:
    clip, clean = torch.stack([tensor(1), tensor(2)]), torch.stack([tensor(3), tensor(4)])
    judge = fake_judge()
    found = judge.judge_clip(judge.know(tensor(5), tensor(5), [FACE]), clip, clean)
    pairs = [(a.double().numpy(), b.double().numpy()) for a, b in zip(clip, clean, strict=True)]
    decibels = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs]
    assert found["clip_psnr"] == pytest.approx(np.mean(decibels), abs=1e-3)
    similar = [
        structural_similarity(
            a, b, channel_axis=0, data_range=1, gaussian_weights=True, use_sample_covariance=False
        )
        for a, b in pairs
    ]
    assert found["clip_ssim"] == pytest.approx(np.mean(similar), abs=1e-3)
    moved = np.abs(np.diff(np.stack([a for a, _ in pairs]), axis=0)).mean() * 255
    assert found["motion"] == pytest.approx(moved, rel=1e-4)


def test_clips_seen_together_are_measured_as_clips_seen_alone() -> None:
    judge = fake_judge(limit=0.3)
    known = judge.know(tensor(5), tensor(5), [FACE])
    dark = torch.zeros_like(tensor(1))
    clips = [torch.stack([tensor(i), dark, tensor(i + 7)]) for i in range(6)]
    seen = judge.look([*clips, clips[0]], [True] * 6 + [False])
    assert seen[6].landmarks is None and not seen[6].vectors
    for clip, one in zip(clips, seen, strict=False):
        together = judge.measure(known, one, seen[6])
        alone = judge.judge_clip(known, clip, clips[0])
        assert together.figures == pytest.approx(alone, abs=1e-6, nan_ok=True)
        assert math.isnan(together.by_frame["dlib"][1]) and together.by_frame["face"][1] == 0
    with pytest.raises(ValueError, match="searched for faces"):
        judge.measure(known, seen[6], None)


def test_networks_see_a_few_frames_at_a_time_however_long_the_clips(monkeypatch) -> None:
    judge, frames = fake_judge(limit=0.3), [tensor(i) for i in range(5)]
    dark = torch.zeros_like(frames[0])
    clips = [torch.stack(frames * 4 + [dark] * 20), torch.stack([dark, *frames])]
    known = judge.know(tensor(7), tensor(7), [FACE])
    counts = {"detect_all": [], "embed_all": [], "_features": []}

    def counted(place: object, name: str) -> None:
        real = getattr(place, name)

        def call(images: torch.Tensor, *more: torch.Tensor) -> object:
            counts[name].append(len(images))
            return real(images, *more)

        monkeypatch.setattr(place, name, call)

    counted(judge.detector, "detect_all")
    counted(judge.embedders["dlib"], "embed_all")
    counted(judge, "_features")

    def figures() -> list[dict[str, float]]:
        seen = judge.look(clips, [True, True])
        kept = [t for one in seen for t in vars(one).values() if isinstance(t, torch.Tensor)]
        assert sum(t.numel() for t in kept) < 1.1 * sum(clip.numel() for clip in clips)
        return [judge.measure(known, one, one).figures for one in seen]

    in_parts = figures()
    assert all(max(found) == 16 for found in counts.values())
    assert len(counts["detect_all"]) == 3
    monkeypatch.setattr("anti_i2v_lit.evaluation.judge.FRAMES_AT_ONCE", 1000)
    monkeypatch.setattr("anti_i2v_lit.evaluation.judge.LPIPS_BATCH", 1000)
    for found, expected in zip(in_parts, figures(), strict=True):
        assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert max(counts["detect_all"]) == 46


def test_a_view_that_is_the_photo_is_not_displaced_whatever_the_batch() -> None:
    judge = fake_judge()
    # As in half precision: another size of the batch, another rounding.
    judge.encoders["own"] = lambda views: views + 0.1 * len(views)
    photos = [tensor(i) for i in range(3)]
    known = [judge.know(photo, photo, []) for photo in photos]
    found = judge.judge_all_latents(known, torch.stack([*photos[:2], photos[2] + 0.2]))
    assert [figures["shift_own"] for figures in found[:2]] == [0.0, 0.0]
    assert found[2]["shift_own"] == pytest.approx(0.2 / photos[2].std().item(), rel=1e-4)


def test_perceptual_figures_are_those_of_lpips() -> None:
    clip, clean, photo = (
        torch.stack([tensor(1), tensor(2)]),
        tensor(3).repeat(2, 1, 1, 1),
        tensor(4),
    )
    judge = fake_judge()
    found = judge.judge_clip(judge.know(photo, photo, [FACE]), clip, clean)
    larger = [
        torch.nn.functional.interpolate(x, size=(64, 64), mode="bilinear")
        for x in (clip, clean, photo[None].repeat(2, 1, 1, 1))
    ]
    with torch.no_grad():
        own = judge.lpips(larger[0], larger[2], normalize=True).mean().item()
        other = judge.lpips(larger[0], larger[1], normalize=True).mean().item()
    assert found["photo_lpips"] == pytest.approx(own, abs=1e-5)
    assert found["clip_lpips"] == pytest.approx(other, abs=1e-5)


def test_lpips_of_large_frames_is_taken_at_512_pixels() -> None:
    clip, clean = (torch.stack([tensor(i, 640)[:, :160]]) for i in (1, 2))
    judge = fake_judge()
    found = judge.judge_clip(judge.know(clip[0], clip[0], []), clip, clean)
    smaller = [
        [
            np.asarray(
                Image.fromarray(channel.numpy()).resize((512, 128), Image.Resampling.BILINEAR)
            )
            for channel in frames[0]
        ]
        for frames in (clip, clean)
    ]
    at_512 = [torch.from_numpy(np.stack(channels))[None] for channels in smaller]
    with torch.no_grad():
        expected, large = (
            judge.lpips(*pair, normalize=True).item() for pair in (at_512, (clip, clean))
        )
    assert found["clip_lpips"] == pytest.approx(expected, abs=1e-4)
    assert abs(large - expected) > 1e-3, "the size matters for this picture"
    assert all("512 px at most" in COLUMNS[n].title for n in ("clip_lpips", "photo_lpips"))


def test_displacement_counts_standard_deviations() -> None:
    latents = np.random.default_rng(0).normal(3, 2, (1, 4, 8, 8))
    moved = latents + 0.5
    expected = 0.5 / latents.std(ddof=1)
    assert displacement(torch.tensor(moved), torch.tensor(latents)) == pytest.approx(expected)


def test_files_of_another_size_have_no_visibility() -> None:
    assert all(math.isnan(v) for v in judge_file(tensor(1, 24), tensor(1, 32)).values())
    same = judge_file(tensor(1), tensor(1))
    assert same == {"psnr": 100.0, "ciede2000": 0.0, "max_change_8bit": 0.0}


def test_every_figure_has_a_column() -> None:
    photo = tensor(1)
    judge = fake_judge()
    known = judge.know(photo, photo, [FACE])
    figures = judge.judge_clip(
        known, photo[None].repeat(2, 1, 1, 1), photo[None].repeat(2, 1, 1, 1)
    )
    figures |= judge.judge_latents(known, photo) | judge_file(photo, photo)
    assert set(figures) <= set(COLUMNS)
    assert set(COLUMNS) - set(figures) == {
        "shift_foreign",
        *(n for n in COLUMNS if n.startswith("hse_")),
    }


def test_a_judge_without_weights_leaves_parts_out(tmp_path, monkeypatch) -> None:
    assert build_judge(tmp_path, None).parts == []
    monkeypatch.setenv("ANTI_I2V_DATA", str(tmp_path))
    assert weights_folder(None) is None
    (tmp_path / "models").mkdir()
    assert weights_folder(None) == tmp_path / "models"
    with pytest.raises(ValueError, match="--weights"):
        weights_folder(tmp_path / "nowhere")


def test_other_weights_of_the_foreign_encoder_are_another_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "ForeignEncoder", lambda path: FadingGenerator())
    parts = []
    for content in (b"1", b"1", b"2"):
        (tmp_path / "taef2_encoder.pth").write_bytes(content)
        parts.append(build_judge(tmp_path, None, BrightDetector()).parts)
    assert parts[0] == parts[1] != parts[2] and parts[0][0].startswith("shift_foreign@")
