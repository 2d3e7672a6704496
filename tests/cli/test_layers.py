"""`anti-i2v layers` as the configurations say it: the commands fit them, and run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.miniatures.ltx import tiny_ltx
from anti_i2v_lit.miniatures.svd import tiny_svd
from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2
from anti_i2v_lit.settings import load_settings
from anti_i2v_lit.surrogates.dynamicrafter.miniature import (
    random_state,
    tiny_settings,
    write_miniature,
)
from anti_i2v_lit.surrogates.dynamicrafter.model import DynamiCrafter
from anti_i2v_lit.surrogates.open_sora.miniature import save_tiny

CONFIGS = Path(__file__).parents[2] / "configs" / "cloak"
# What may differ between a run and a measurement: memory, time, texts.
ASIDE = {"activation_checkpointing", "prompt_cache", "prompts", "weight"}


def published() -> list[Path]:
    """The configurations of models that are not packaged."""
    found = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        nodes = yaml.safe_load(path.read_text()).get("surrogates", [])
        if any(node.get("path", "embedded") != "embedded" for node in nodes):
            found.append(path)
    return found


def header(path: Path) -> str:
    """The comment at the top of a configuration, as one text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


def command(path: Path) -> list[str]:
    """The words of the command by which a configuration's taps are measured."""
    text = header(path).replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("anti-i2v layers ")]
    return shlex.split(line)[1:]


def test_all_published_models_are_looked_at() -> None:
    assert len(published()) == 10


@pytest.mark.parametrize("path", published(), ids=lambda p: p.stem)
def test_the_header_says_how_its_taps_are_measured(path: Path) -> None:
    """And the measured model is the attacked one, at the same size, length and precision."""
    text = " ".join(header(path).split())
    assert "Taps" in text and "depth" in text and "obody has measured" in text
    verb, name, *words = command(path)
    assert verb == "layers" and words[:4] == ["--photos", "FOLDER", "--out", "taps"]
    measured = load_settings(values={"surrogates": [{"name": name}]}, overrides=words[4:])
    (attacked,) = load_settings(path).surrogates
    differing = {key for key, value in attacked.items() if measured.surrogates[0][key] != value}
    assert differing <= ASIDE


def dynamicrafter(folder: Path) -> None:
    model = DynamiCrafter.on_meta(tiny_settings())
    write_miniature(folder, model.settings, random_state(model))


def saved(build: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda folder: build().save_pretrained(folder)


# Configuration -> what writes a small checkpoint of its layout, and the sizes that this can take.
SMALL: dict[str, tuple[Callable[[Path], None], dict[str, int]]] = {
    "cogvideox_5b": (saved(tiny_cogvideox), {}),
    "cogvideox_1_5_5b": (saved(lambda: tiny_cogvideox("1.5")), {"height": 0, "width": 0}),
    "wan_2_1_14b": (saved(tiny_wan_2_1), {"height": 32, "width": 32}),
    "wan_2_2_5b": (saved(tiny_wan_2_2), {"height": 64, "width": 64}),
    "ltx": (saved(tiny_ltx), {"height": 64, "width": 64}),
    "svd": (saved(tiny_svd), {"height": 32, "width": 48, "num_frames": 3}),
    "dynamicrafter_512": (dynamicrafter, {"size": 0, "num_frames": 3}),
    "open_sora": (save_tiny, {"height": 32, "width": 48}),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_command_runs_on_a_small_checkpoint(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, sizes = SMALL[name]
    write(tmp_path / "model")
    verb, surrogate, *words = command(CONFIGS / f"{name}.yaml")
    overrides = [
        f"surrogates.0.path={tmp_path / 'model'}" if ".path=" in word else word
        for word in words[4:]
    ]
    overrides += [f"surrogates.0.{key}={value}" for key, value in sizes.items()]
    # One public portrait in the place of a folder of them.
    little = ["--views", "6", "--timesteps", "0.5", "--noises", "1", "--out", str(tmp_path)]
    assert main([verb, surrogate, *overrides, "trainer.accelerator=cpu", *little]) == 0
    assert "Proposed by this measurement: IRC" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    taps = {layer["tap"] for layer in results["layers"]}
    proposed = results["proposed"]
    assert {proposed["shallow"], *proposed["deep"], *proposed["anchor"]} <= taps
    chosen = load_settings(tmp_path / "taps.yaml")
    assert chosen.surrogates[0]["name"] == surrogate
    assert next(n for n in chosen.objectives if n["name"] == "irc")["deep_taps"]
