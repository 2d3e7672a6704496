"""Networks of pyiqa: what is asked of it, and MUSIQ with random weights where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from anti_i2v_lit.metrics import learned_quality
from anti_i2v_lit.metrics.availability import build_metric, missing
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.learned_quality import CUDA, PYIQA, Q_ALIGN_WEIGHTS


def clip() -> GeneratedClip:
    picture = torch.from_numpy(astronaut()[:160, 100:260].copy()).permute(2, 0, 1).float() / 255
    return GeneratedClip(key="a", photo=picture, frames=torch.stack([picture, picture.flip(0)]))


@pytest.mark.parametrize("name", ["musiq", "q_align_frames", "q_align_video"])
def test_what_is_absent_is_named_with_how_to_get_it(name: str, tmp_path: Path) -> None:
    lacking = missing({"name": name}, tmp_path)
    assert any("hf download" in need.how_to_get for need in lacking)
    with pytest.raises(ValueError, match=f"'{name}' cannot run here"):
        build_metric({"name": name}, tmp_path)


def test_musiq_equals_pyiqa_on_random_weights(tmp_path: Path) -> None:
    if not PYIQA.is_here:
        pytest.skip("pyiqa is not installed (extra iqa)")
    from pyiqa import create_metric

    torch.manual_seed(0)
    theirs = create_metric("musiq", device=torch.device("cpu"), pretrained=False)
    path = tmp_path / "musiq_koniq_ckpt-e95806b9.pth"
    torch.save(theirs.net.state_dict(), path)
    subject = clip()
    expected = theirs(subject.frames).flatten()
    found = build_metric({"name": "musiq"}, tmp_path).per_frame(subject)
    torch.testing.assert_close(found.float(), expected)
    assert found[0] != found[1]
    torch.save({"head.weight": torch.zeros(1)}, path)
    learned_quality._musiq.cache_clear()
    with pytest.raises(ValueError, match="is no MUSIQ"):
        build_metric({"name": "musiq"}, tmp_path)


class FakeLanguageModel:
    """Scores pictures by their mean red, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, images: list, task_: str, input_: str) -> torch.Tensor:
        self.asked.append((task_, input_))
        pictures = images[0] if input_ == "video" else images
        red = [np.asarray(picture)[..., 0].mean() for picture in pictures]
        return torch.tensor([sum(red) / len(red)]).half()


def test_q_align_is_asked_per_frame_and_for_the_whole_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / Q_ALIGN_WEIGHTS.name).mkdir(parents=True)
    model = FakeLanguageModel()
    monkeypatch.setattr(learned_quality, "_q_align", lambda folder: model)
    for need in (PYIQA, CUDA):
        monkeypatch.setattr(type(need), "is_here", True)
    subject = clip()
    red = 255 * subject.frames[:, 0].mean(dim=(1, 2))
    frames = build_metric({"name": "q_align_frames"}, tmp_path).per_frame(subject)
    assert frames.tolist() == pytest.approx(red.tolist(), rel=1e-3)
    video = build_metric({"name": "q_align_video"}, tmp_path)
    assert video.score(subject) == pytest.approx(red.mean().item(), rel=1e-3)
    assert model.asked == [("quality", "image")] * 2 + [("quality", "video")]


def test_q_align_refuses_folders_of_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(PYIQA), "is_here", True)
    with pytest.raises(ValueError, match="expected a folder q-future/one-align"):
        learned_quality._q_align("/somewhere/else")
