from pathlib import Path

import pytest

from anti_i2v_lit.evaluation.gauntlet import entries, tiers
from anti_i2v_lit.evaluation.plan import generator_node
from anti_i2v_lit.evaluation.settings import EvaluationSettings, load_evaluation_settings
from anti_i2v_lit.purifications.gauntlets import gauntlet

CONFIG = Path(__file__).parents[2] / "configs" / "evaluate" / "evaluate.yaml"


def test_the_packaged_file_holds_the_defaults_and_its_command() -> None:
    assert load_evaluation_settings(CONFIG).plain() == EvaluationSettings().plain()
    assert "anti-i2v evaluate --clean DIR --cloaked DIR --out DIR" in CONFIG.read_text()


def test_overrides_reach_into_sections_and_lists() -> None:
    words = ["seeds=[3]", "noise.seeds=0", "generators.1.path=/m", "gauntlet=[none,blur]"]
    settings = load_evaluation_settings(overrides=words)
    assert settings.seeds == [3] and settings.noise.seeds == 0
    assert settings.generators[1]["path"] == "/m" and settings.generators[0]["path"] == "embedded"
    assert [e.label for e in settings.purifications()] == ["none", "blur"]
    assert load_evaluation_settings(overrides=["report.photos=3"]).report.photos == 3
    assert "num_inference_steps" not in generator_node(settings)(settings.generators[0])
    fewer = load_evaluation_settings(overrides=["sampling_steps=8"])
    assert generator_node(fewer)(fewer.generators[0])["num_inference_steps"] == 8


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sedes=[0]", "Did you mean 'seeds'"),
        ("noise.sedes=1", "Did you mean 'seeds'"),
        ("noise.seeds=4", "at most 3 of them, got 4; give more seeds"),
        ("seeds=[]", "at least one"),
        ("seeds=[1,1]", "different ones"),
        ("gauntlet=quik", "quick"),
        ("gauntlet=[{name: jpeg, severity: 2}]", "severity of jpeg"),
        ("gauntlet=[{name: jpeg, qualiti: 2}]", "qualiti"),
        ("gauntlet=[]", "at least one"),
        ("metrics=[motoin]", "motion"),
        ("generators.1.label=mmdit", "its own label"),
        ("generators.0.name=cogvideo", "cogvideox"),
        ("clips.keep=some", "clips.keep"),
        ("clips.purifications=[blur]", "clips.purifications"),
        ("identity.thresholds.dlib=3", "dlib"),
        ("report.photo=3", "Did you mean 'photos'"),
        ("report.frames=1", "report.frames"),
        ("nonsense", "section.field=value"),
    ],
)
def test_wrong_values_are_refused_with_the_remedy(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_evaluation_settings(overrides=[word])


def test_a_gauntlets_rows_keep_their_order_and_severity() -> None:
    rows = gauntlet("quick")
    found = entries("quick")
    assert [(e.label, e.severity) for e in found] == [(r.label, r.severity) for r in rows]
    assert tiers(found)["quick"] == tuple(r.label for r in rows)
    more = [*found, *entries([{"name": "blur", "label": "more"}])]
    assert tiers(more)["all"] == tuple(e.label for e in more) and "audit" not in tiers(more)


def test_a_gauntlet_was_run_if_what_it_does_was_done_not_if_its_labels_occur() -> None:
    quick = entries("quick")
    first = next(e for e in quick if e.config is not None)

    def with_first(**changes: object) -> dict[str, tuple[str, ...]]:
        settings = {} if "name" in changes else first.config
        node = {**settings, "label": first.label, "severity": first.severity, **changes}
        return tiers([entries([node])[0] if e is first else e for e in quick])

    assert with_first()["quick"] == tuple(e.label for e in quick)
    assert "mine" in with_first(label="mine")["quick"]
    assert "quick" not in with_first(severity=0.01)
    assert "quick" not in with_first(name="grey")
    (faint,) = entries([{"name": first.config["name"], "label": first.label, "severity": 0.01}])
    assert first.facts().tier == "quick" and faint.facts().tier == ""


def test_two_entries_of_one_label_must_agree() -> None:
    same = entries(["none", "blur", "blur"])
    assert [e.label for e in same] == ["none", "blur"]
    with pytest.raises(ValueError, match="two different entries"):
        entries([{"name": "blur", "label": "x"}, {"name": "jpeg", "label": "x"}])
