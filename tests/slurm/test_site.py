from pathlib import Path

import pytest

from anti_i2v_lit.slurm.site import Site, read_site

EXAMPLE = Path(__file__).parents[2] / "slurm" / "site.yaml"


def test_the_example_holds_every_name_with_its_default_except_for_names(tmp_path):
    site = read_site(EXAMPLE)
    assert site == Site(partition="gpu", account="my-project")
    for name in Site.__dataclass_fields__:
        assert f"\n{name}:" in EXAMPLE.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partiton: gpu", "Did you mean 'partition'"),
        ("time: 12:00:00", "put it into quotes"),
        ("gpus_per_node: two", "gpus_per_node must be int"),
        ("gpus_per_node: -1", "at least 0"),
        ("modules: cuda", "modules must be"),
        ("directives: [constraint=a100]", "--option=value"),
        ("gpus_per_node: 2\ntasks_per_node: 4", "gpus_per_node=2"),
        ("- a", "names with values"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_files_are_refused_with_the_remedy(tmp_path, text, message):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_site(path)


def test_a_missing_file_names_the_example(tmp_path):
    with pytest.raises(ValueError, match="slurm/site.yaml"):
        read_site(tmp_path / "none.yaml")


def test_processes_follow_the_gpus():
    assert Site(gpus_per_node=8).processes_per_node == 8
    assert Site(gpus_per_node=0).processes_per_node == 1
    assert Site(gpus_per_node=0, tasks_per_node=2).processes_per_node == 2
