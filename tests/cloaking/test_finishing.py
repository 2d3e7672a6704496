"""From parameters to a judged file; figures by other libraries on the file as it is on disk."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.finishing import Finisher, memory_errors, publish, share_kept
from anti_i2v_lit.cloaking.gate import GateConfig
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.data.writing import OutputConfig
from tests.cloaking.linear import LinearSurrogate, make_loop, run

OPEN = {"min_psnr_db": 0.0, "min_ssim": 0.0, "max_ciede2000": 0.0, "max_lpips": 0.0}
SIDE = 96


class Case:
    """A photo file, a job that was optimised on it, and a finisher."""

    def __init__(self, folder: Path, name: str, steps: int = 30, **gate: float) -> None:
        self.path, self.out = folder / name, folder / "out"
        face = Image.fromarray(skimage.data.astronaut()[20:212, 130:322])
        face.save(self.path, quality=92)
        self.source = SourceFile(key=name, path=self.path)
        self.photo = read_photo(self.source, ReadingConfig())
        whole = {"crop_weight": 0, "face_weight": 0, "letterbox_weight": 0, "stretch_weight": 1}
        self.loop = make_loop(
            [{"name": "ira_latent", "direction": "away"}],
            {"linear": (LinearSurrogate(SIDE), 1.0)},
            framing={**whole, "canvas_side_px": SIDE},
            space={"name": "dual"},
            random_start=0.5,
            step_8bit=2.0,
        )
        canvas = self.loop.framing.to_canvas(self.photo.srgb(), (SIDE, SIDE))
        self.job = PhotoJob(
            key=name, photo_size=self.photo.size, canvas=canvas[None], faces=(), budget_8bit=16.0
        )
        run(self.loop, [self.job], steps)
        self.finisher = Finisher(
            loop=self.loop,
            framing=self.loop.framing,
            gate=GateConfig(**{**OPEN, **gate}),
            reading=ReadingConfig(),
            output=OutputConfig(),
            out=self.out,
            staging=folder / "staging",
            check=lambda key, path: None,
        )

    def finish(self):
        return self.finisher.finish(self.job, self.photo, self.job.key)

    def staged(self) -> list[Path]:
        return [p for p in (self.finisher.staging).rglob("*") if p.is_file()]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def uploaded(image: np.ndarray) -> np.ndarray:
    """Half size, quality 75 with 4:2:0, size again, all by Pillow."""
    height, width = image.shape[:2]
    bicubic = Image.Resampling.BICUBIC
    file = io.BytesIO()
    small = Image.fromarray(image).resize((width // 2, height // 2), bicubic)
    small.save(file, "JPEG", quality=75, subsampling="4:2:0")
    return np.asarray(Image.open(file).resize((width, height), bicubic))


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg"])
def test_figures_are_those_of_the_file_on_disk(tmp_path: Path, name: str) -> None:
    case = Case(tmp_path, name)
    verdict = case.finish()
    assert not verdict.complaints and not case.staged()
    before, after = pixels(case.path), pixels(case.out / verdict.output)
    figures = verdict.figures
    change = np.abs(before.astype(int) - after.astype(int)).max()
    assert figures["max_change_8bit"] == pytest.approx(change)
    # A lossy encoder adds its own rounding to the budget.
    assert 8 < change <= (16 if name.endswith("png") else 40)
    assert figures["psnr"] == pytest.approx(peak_signal_noise_ratio(before, after), abs=1e-3)
    similarity = structural_similarity(
        before, after, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
    )
    assert figures["ssim"] == pytest.approx(similarity, abs=0.01)
    residual = after.astype(float) - before
    left = uploaded(after).astype(float) - uploaded(before)
    kept = (residual * left).sum() / (residual**2).sum()
    assert figures["residual_kept"] == pytest.approx(kept, abs=0.02)
    assert 0.1 < figures["residual_kept"] < 0.95


def test_losses_are_those_of_the_written_pixels(tmp_path: Path) -> None:
    """The term is the distance to the clean view, so it can be taken from the files."""
    case = Case(tmp_path, "photo.jpg")
    figures = case.finish().figures
    size = (SIDE, SIDE)

    def view(image: np.ndarray) -> np.ndarray:
        shown = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(shown) / 255

    before, after = pixels(case.path), pixels(case.out / "photo.jpg")
    clean = view(before)
    channels = clean.reshape(-1)

    def loss(image: np.ndarray) -> float:
        return -float(((view(image) - clean) ** 2).mean() / channels.var())

    assert figures["loss_first"] == 0
    assert figures["loss_last"] == pytest.approx(loss(after), rel=0.05)
    kept = loss(uploaded(before)) - loss(uploaded(after))
    assert figures["loss_kept"] == pytest.approx(kept / -loss(after), abs=0.06)


def test_a_file_over_the_limit_is_not_published(tmp_path: Path) -> None:
    case = Case(tmp_path, "photo.png", min_psnr_db=99.0, max_change_8bit=3.0)
    complaints = case.finish().complaints
    assert [c.split()[0] for c in complaints] == ["psnr", "max_change_8bit"]
    assert not case.out.exists() and not case.staged()


def test_a_cloak_that_changes_nothing_is_a_failure_and_leaves_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path, "photo.png", steps=0)
    with torch.no_grad():
        for parameter in case.job.parameters.values():
            parameter.zero_()
    with pytest.raises(PhotoFailure, match="equals the photo"):
        case.finish()
    assert not case.out.exists() and not case.staged()


def test_memory_that_torch_lacks_while_finishing_costs_one_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, "photo.png", steps=1)

    def hungry(*_: object) -> None:
        torch.empty(10**15)

    monkeypatch.setattr("anti_i2v_lit.cloaking.finishing.measure_change", hungry)
    with pytest.raises(PhotoFailure, match="not enough memory"):
        case.finish()
    monkeypatch.setattr(case.loop, "judge_all", hungry)
    with pytest.raises(PhotoFailure, match="not enough memory"):
        case.finish()
    assert not case.out.exists() and not case.staged()
    with pytest.raises(RuntimeError, match="shape"), memory_errors():
        torch.zeros(2) @ torch.zeros(3, 1)


def test_nothing_is_put_in_place_of_what_the_check_refuses(tmp_path: Path) -> None:
    case = Case(tmp_path, "photo.png", steps=2)
    case.out.mkdir()
    (case.out / "photo.png").write_bytes(b"somebody else's")

    def refuses(key: str, path: Path) -> None:
        assert (key, path) == ("photo.png", case.out / "photo.png")
        raise PhotoFailure("taken")

    case.finisher.check = refuses
    with pytest.raises(PhotoFailure, match="taken"):
        case.finish()
    assert (case.out / "photo.png").read_bytes() == b"somebody else's" and not case.staged()


def test_a_rename_that_is_not_durable_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "staged").write_bytes(b"x")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish(tmp_path / "staged", tmp_path / "out" / "p.png")
    assert list((tmp_path / "out").iterdir()) == []


def test_share_kept_is_a_projection() -> None:
    residual = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    other = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    other -= residual * (other * residual).sum() / residual.square().sum()
    assert share_kept(residual, 0.3 * residual + other) == pytest.approx(0.3, abs=1e-5)
    assert share_kept(torch.zeros(3, 8, 8), other) == 0
