"""Layer analysis: statistics against scipy and hand-made features, the flow on every surrogate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import mannwhitneyu
from skimage.data import astronaut

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.evaluation.layer_choice import (
    automatic_taps,
    layer_table,
    propose_taps,
    with_taps,
)
from anti_i2v_lit.evaluation.layer_statistics import (
    comparable_tokens,
    components_as_colours,
    departure,
    discrimination,
    roc_area,
    separation,
    token_grid,
)
from anti_i2v_lit.evaluation.layers import (
    LayersConfig,
    LayerScore,
    Portrait,
    layer_maps,
    measure_layers,
    shallow_tap,
)
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.settings import load_settings
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.cogvideox import CogVideoXSurrogate
from anti_i2v_lit.types import Condition, Denoised


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_roc_area_is_that_of_scipy() -> None:
    positives, negatives = noise(40).round(decimals=1) + 0.3, noise(60, seed=1).round(decimals=1)
    expected = mannwhitneyu(positives, negatives).statistic / (40 * 60)
    assert roc_area(positives, negatives) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="both kinds"):
        roc_area(positives, negatives[:0])


@pytest.mark.parametrize(
    ("tokens", "latents", "grid"),
    [
        (1350, (1, 60, 90), (1, 30, 45)),  # CogVideoX-5B, four frames
        (17550, (13, 60, 90), (13, 30, 45)),  # and 49
        (4080, (2, 96, 170), (1, 48, 85)),  # CogVideoX1.5 joins two latent frames
        (16 * 40 * 64, (16, 40, 64), (16, 40, 64)),  # a U-Net's first level
        (16 * 5 * 8, (16, 40, 64), (16, 5, 8)),  # its fourth
        (3 * 3 * 3, (3, 5, 5), (3, 3, 3)),  # odd sides
    ],
)
def test_token_grids_of_known_models(
    tokens: int, latents: tuple[int, int, int], grid: tuple[int, int, int]
) -> None:
    assert token_grid(tokens, latents) == grid
    with pytest.raises(ValueError, match="do not form a grid"):
        token_grid(tokens + 1, latents)


ALL = torch.ones(12, 36, dtype=torch.bool)


def planted(strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise tokens [12, 36, 8] with one direction added inside a box that moves."""
    labels = torch.zeros(12, 6, 6, dtype=torch.bool)
    for view in range(12):
        labels[view, view % 4 : view % 4 + 3, view % 3 : view % 3 + 3] = True
    tokens = noise(12, 36, 8)
    tokens[..., 2] += strength * labels.flatten(1)
    return tokens, labels.flatten(1)


def test_separation_finds_what_was_planted_and_nothing_else() -> None:
    folds = torch.arange(12) % 2
    found = []
    for strength in (0.0, 1.0, 6.0):
        tokens, labels = planted(strength)
        found.append(separation(tokens, labels, ALL, folds))
    assert found[0] == pytest.approx(0.5, abs=0.1)
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.9


def test_positions_alone_do_not_separate() -> None:
    _, labels = planted(0.0)
    where = 5 * noise(1, 36, 8, seed=3).expand(12, -1, -1)  # the same at every view
    tokens = where + 0.1 * noise(12, 36, 8)
    assert separation(tokens, labels, ALL, torch.arange(12) % 2) == pytest.approx(0.5, abs=0.1)


def test_a_face_that_stands_still_does_not_mirror_itself() -> None:
    """Almost the same place in every view: what is left must be chance, not its opposite."""
    labels = torch.zeros(12, 6, 6, dtype=torch.bool)
    labels[:, 1:5, 1:5] = True
    for view in range(12):
        labels[view, view % 6, view % 5] ^= True
    labels = labels.flatten(1)
    tokens = 5 * noise(1, 36, 8, seed=3) + labels[..., None] * 2.0 + noise(12, 36, 8)
    assert separation(tokens, labels, ALL, torch.arange(12) % 2) > 0.5


def test_tokens_without_photo_count_for_nothing() -> None:
    tokens, labels = planted(2.0)
    folds, used = torch.arange(12) % 2, noise(12, 36, seed=5) > -1
    spoilt = torch.where(used[..., None], tokens, 100 * noise(12, 36, 8, seed=6))
    expected = separation(tokens, labels, used, folds)
    assert separation(spoilt, labels, used, folds) == pytest.approx(expected, abs=1e-6)
    assert comparable_tokens(spoilt, used)[~used].abs().max() == 0


def test_a_face_that_fills_every_view_is_refused() -> None:
    tokens, labels = planted(1.0)
    with pytest.raises(ValueError, match="background"):
        separation(tokens, torch.ones_like(labels), ALL, torch.arange(12) % 2)


def test_discrimination_knows_people_and_not_chance() -> None:
    owners = torch.arange(8).repeat_interleave(3)
    people = noise(8, 16).repeat_interleave(3, dim=0)
    assert discrimination(people + 0.01 * noise(24, 16, seed=1), owners) == 1.0
    assert discrimination(noise(24, 64, seed=2), owners) == pytest.approx(0.5, abs=0.15)


def test_departure_is_cka_by_gram_matrices() -> None:
    x, y = noise(4, 10, 5), noise(4, 10, 7, seed=1) + noise(4, 10, 7)[..., :7]
    centring = np.eye(40) - 1 / 40
    flat = (x.reshape(40, 5).double().numpy(), y.reshape(40, 7).double().numpy())
    grams = [centring @ (m @ m.T) @ centring for m in flat]
    cka = (grams[0] * grams[1]).sum() / np.linalg.norm(grams[0]) / np.linalg.norm(grams[1])
    assert departure(x, y) == pytest.approx(1 - cka, abs=1e-5)
    rotation = torch.linalg.qr(noise(5, 5, seed=4)).Q
    assert departure(3 * x @ rotation, x) == pytest.approx(0, abs=1e-5)


def test_components_show_the_strongest_direction() -> None:
    rows = torch.arange(6.0)[:, None].expand(6, 4)
    direction = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    tokens = noise(6, 4, 6) * 0.01 + torch.sin(rows)[..., None] * direction + 2 * noise(6)
    red = components_as_colours(tokens)[0]
    assert red.min() == 0 and red.max() == 1
    assert red.std(dim=1).max() < 0.2 < red.std(dim=0).min()
    assert torch.equal(components_as_colours(tokens), components_as_colours(tokens.clone()))
    assert components_as_colours(noise(1, 2, 6)).shape == (3, 1, 2)


def astronaut_portraits(count: int) -> list[Portrait]:
    photo = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    face = Face(box=(0.36, 0.11, 0.53, 0.42), score=1.0, landmarks=())
    mirrored = Face(box=(0.47, 0.11, 0.64, 0.42), score=1.0, landmarks=())
    both = [
        Portrait(key="a", photo=photo, face=face),
        Portrait(key="b", photo=photo.flip(-1)[[2, 0, 1]].contiguous(), face=mirrored),
    ]
    return both[:count]


SMALL = {"views": 6, "timestep_shares": [0.3], "num_noises": 1}


@pytest.mark.parametrize("name", SURROGATES.names())
def test_every_surrogate_can_be_measured(name: str) -> None:
    surrogate = SURROGATES.load(name).tiny()
    config = LayersConfig(**SMALL)
    scores = measure_layers(surrogate, astronaut_portraits(2), config)
    assert [score.tap for score in scores] == list(surrogate.denoiser_taps)
    shallow = shallow_tap(surrogate.denoiser_taps)
    for score in scores:
        assert 0 <= score.face <= 1
        assert score.identity is not None and 0 <= score.identity <= 1
        assert score.departure == pytest.approx(0, abs=1e-4) or score.tap != shallow
        assert score.semantic == pytest.approx(score.face + score.identity - 1)
    if len(scores) >= 2:
        assert propose_taps(scores).anchor


class FaceSeeing(CogVideoXSurrogate):
    """Features are photo colours plus, in `block.1` alone, a channel that marks red pixels."""

    def _denoise(self, condition: Condition, draw, taps, prediction) -> Denoised:  # noqa: ANN001
        whole = super()._denoise(condition, draw, taps, prediction)
        made = {}
        for tap, tokens in whole.features.items():
            marks = self.marks.flatten().repeat(tokens.shape[1] // self.marks.numel())
            seen = 20 * marks[None, :, None] * (tap == "block.1")
            made[tap] = noise(*tokens.shape) + torch.cat([seen, 0 * tokens[..., 1:]], dim=-1)
        return Denoised(prediction=None, target=whole.target, features=made)

    def _condition(self, views, encoder_taps, *rest):  # noqa: ANN001, ANN202
        side = self.view_size[0] // 16
        self.marks = torch.nn.functional.adaptive_avg_pool2d(views[:, :1], side)[0, 0]
        return super()._condition(views, encoder_taps, *rest)


def test_the_block_that_sees_the_face_is_found() -> None:
    photo = torch.zeros(3, 128, 128)
    photo[0, 40:80, 50:90] = 1.0
    face = Face(box=(50 / 128, 40 / 128, 90 / 128, 80 / 128), score=1.0, landmarks=())
    surrogate = FaceSeeing.tiny()
    config = LayersConfig(views=12, timestep_shares=[0.5], num_noises=1)
    scores = measure_layers(surrogate, [Portrait(key="x", photo=photo, face=face)], config)
    areas = {score.tap: score.face for score in scores}
    assert areas["block.1"] > 0.9 > max(areas["block.0"], areas["block.2"])
    assert all(score.identity is None for score in scores)
    assert "not measured" in layer_table(scores)


def score_of(tap: str, semantic: float) -> LayerScore:
    return LayerScore(
        tap=tap, face=0.5, face_spread=0.0, identity=None, identity_spread=None,
        departure=0.0, semantic=semantic,
    )  # fmt: skip


def test_proposals_follow_the_scores() -> None:
    values = [0.3, 0.1, 0.9, 0.2, 0.5, 0.4, 0.8, 0.6, 0.2]
    choice = propose_taps([score_of(f"b{i}", v) for i, v in enumerate(values)])
    assert choice.shallow == "b1"
    assert choice.deep == ("b4", "b6", "b7")
    assert choice.anchor == ("b2", "b6", "b7")
    published = automatic_taps([f"b{i}" for i in range(9)])
    assert (published.shallow, published.deep) == ("b2", ("b6", "b7", "b8"))
    with pytest.raises(ValueError, match="at least two"):
        propose_taps([score_of("b0", 1.0)])


def test_the_automatic_taps_are_those_of_the_terms() -> None:
    surrogate = CogVideoXSurrogate.tiny()
    choice = automatic_taps(surrogate.denoiser_taps)
    irc = OBJECTIVES.build({"name": "irc"}).taps(surrogate).denoiser
    ira = OBJECTIVES.build({"name": "ira_denoiser"}).taps(surrogate).denoiser
    assert irc == {choice.shallow, *choice.deep} and ira == set(choice.anchor)


def test_the_proposal_is_a_configuration(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = load_settings(overrides=[f"surrogates.0.path={tiny_checkpoint}"])
    choice = automatic_taps(("block.0", "block.1", "block.2"))
    path = tmp_path / "taps.yaml"
    path.write_text(with_taps(choice, settings.surrogates[0], settings.objectives))
    loaded = load_settings(path)
    terms = {node["name"]: node for node in loaded.objectives}
    assert terms["irc"]["deep_taps"] == ["block.1", "block.2"]
    assert terms["ira_denoiser"]["taps"] == ["block.0", "block.1", "block.2"]
    assert loaded.surrogates == settings.surrogates
    only = yaml.safe_load(with_taps(choice, settings.surrogates[0], [{"name": "denoising"}]))
    assert [node["name"] for node in only["objectives"]] == ["denoising", "irc", "ira_denoiser"]


def test_the_verb_writes_table_picture_results_and_settings(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["layers", "cogvideox", f"surrogates.0.path={tiny_checkpoint}", "--views", "8",
             "--timesteps", "0.5", "--noises", "1", "trainer.accelerator=cpu"]  # fmt: skip
    assert main([*words, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "| block.2 |" in text and "Taken when none are configured: IRC" in text
    assert (tmp_path / "components.png").stat().st_size > 1000
    results = json.loads((tmp_path / "results.json").read_text())
    assert [layer["tap"] for layer in results["layers"]] == ["block.0", "block.1", "block.2"]
    assert load_settings(tmp_path / "taps.yaml").objectives


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cogvideo"], "Did you mean 'cogvideox'"),
        (["cogvideox", "--timesteps", "half"], "--timesteps"),
        (["cogvideox", "--timesteps", "1.5"], "timestep share"),
        (["cogvideox", "--views", "1"], "views"),
        (["cogvideox", "--photos", "nowhere"], "nowhere"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", *words, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


def test_a_view_is_averaged_over_frames() -> None:
    surrogate = CogVideoXSurrogate.tiny()
    pixels = torch.rand(3, *surrogate.view_size, generator=torch.Generator().manual_seed(0))
    maps = layer_maps(surrogate, pixels, "x", 0.5, 0, LayersConfig(**SMALL))
    assert {tuple(values.shape) for values in maps.values()} == {(2, 2, 32)}
