"""Where weights are looked for, and what is said about metrics that cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.availability import build_metric, missing
from anti_i2v_lit.metrics.requirements import DATA_VARIABLE, OptionalPackage, WeightsFile

FILE = WeightsFile(name="net.pt", how_to_get="ask for it")


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def test_a_configured_path_wins_over_the_folder_and_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FILE.find() is None
    places = {name: tmp_path / name / "models" for name in ("given", "default")}
    for folder in places.values():
        folder.mkdir(parents=True)
        (folder / "net.pt").touch()
    (tmp_path / "mine").touch()
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "default"))
    assert FILE.find() == places["default"] / "net.pt"
    assert FILE.find("", places["given"]) == places["given"] / "net.pt"
    assert FILE.find(str(tmp_path / "mine"), places["given"]) == tmp_path / "mine"
    assert FILE.find("/nowhere", places["given"]) is None


def test_an_absent_file_is_refused_with_how_to_get_it() -> None:
    with pytest.raises(ValueError, match="expected net.pt, got '/nowhere'. ask for it"):
        FILE.require("/nowhere")


def test_packages_are_looked_up_without_importing_them() -> None:
    assert OptionalPackage(name="json", how_to_get="").is_here
    assert not OptionalPackage(name="no_such_package", how_to_get="").is_here


def test_metrics_without_needs_run_everywhere(tmp_path: Path) -> None:
    assert missing({"name": "psnr"}, tmp_path) == ()
    assert build_metric({"name": "psnr"}, tmp_path).unit == "dB"


def test_absent_weights_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    (need,) = missing({"name": "identity_dlib"}, tmp_path)
    assert need.name == "dlib_face_resnet_fp16.safetensors"
    with pytest.raises(ValueError, match="'identity_dlib' cannot run here.*convert_dlib"):
        build_metric({"name": "identity_dlib"}, tmp_path)


def test_weights_come_from_the_folder(real_data: Path) -> None:
    node = {"name": "identity_hse", "frames": "last"}
    metric = build_metric(node, real_data / "models")
    assert metric.config.weights == str(real_data / "models" / metric.needs[0].name)
    assert metric.config.frames == "last"


@pytest.mark.parametrize("name", METRICS.names())
def test_every_need_says_how_it_is_met(name: str) -> None:
    for need in METRICS.load(name).needs:
        assert need.name and len(need.how_to_get) > 20
