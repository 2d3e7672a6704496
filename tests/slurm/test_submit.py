"""`anti-i2v submit` where there is no SLURM."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.settings import Settings
from anti_i2v_lit.slurm.jobs import CLOAK_FIELDS, Job, chain_jobs, render
from anti_i2v_lit.slurm.site import Site


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with three shards and no program of SLURM's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for number in range(3):
        (tmp_path / f"p-{number}.tar").touch()


def test_a_dry_run_needs_no_slurm_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["array", "p-{0..2}.tar", "attack.steps=3", "--parts", "3", "--max-running", "2"]
    assert main(["submit", *words, "--out", "out dir", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --array=0-2%2\n" in shown
    assert "set -- 'p-{0..2}.tar' attack.steps=3 --out 'out dir'\n" in shown
    assert "#SBATCH --signal=SIGUSR1@180\n" in shown and "@SITE@" not in shown
    assert not Path("out dir").exists()


@pytest.mark.parametrize(
    ("folder", "option"),
    [
        ("plain", "--output={}/plain/logs/nodes-%j.out"),
        ("my cloaks", '--output="{}/my cloaks/logs/nodes-%j.out"'),
        ('a "b" #1', '--output="{}/a \\"b\\" #1/logs/nodes-%j.out"'),
        ("50%d", "--output={}/50%%d/logs/nodes-%j.out"),
    ],
)
def test_the_folder_of_logs_may_have_any_name(folder: str, option: str) -> None:
    text = render(Job(template="nodes", arguments=[]), Site(), Path(folder))
    assert f"#SBATCH {option.format(Path.cwd())}\n" in text


def test_a_folder_that_sbatch_cannot_name_is_refused() -> None:
    with pytest.raises(ValueError, match="backslash"):
        render(Job(template="nodes", arguments=[]), Site(), Path("a\\b"))


def test_in_a_chain_whole_sections_go_to_the_cloak_as_well() -> None:
    assert {field.name for field in dataclasses.fields(Settings)} == CLOAK_FIELDS
    words = ["surrogates=[{name: cogvideox}]", "objectives=[{name: irc}]", "space={name: rgb}"]
    words += ["seed=3", "attack.steps=2", "reading.max_megapixels=300"]
    own = ["photos", "samples_per_shard=5", "caption_suffix=.txt"]
    jobs = chain_jobs([*own, *words], Path("out"), Site(), shards=Path("s"), kind="photos", parts=1)
    assert list(jobs[0].arguments)[:3] == own and not set(words) & set(jobs[0].arguments)
    assert set(words) < set(jobs[1].arguments) and not set(own) & set(jobs[1].arguments)


def test_without_slurm_the_remedy_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "nodes", "p-0.tar", "--out", "out"]) == 1
    said = capsys.readouterr().err
    assert "sbatch not found" in said and "--dry-run" in said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["array", "p-{0..2}.tar", "--parts", "4"], "take --parts 3"),
        (["array", "p-0.tar", "--parts", "0"], "--parts must be at least 1"),
        (["array", "."], "anti-i2v shard"),
        (["nodes", "p-0.tar", "--nodes", "0"], "--nodes must be at least 1"),
        (["nodes", "p-0.tar", "trainer.devices=2"], "SLURM decides"),
        (["nodes"], "no photos given"),
        (["chain", "photos"], "--shards DIR is needed"),
        (["nodes", "p-0.tar", "--templates", "none"], "--templates DIR"),
        (["evaluate", "verify", "out"], "--evaluate"),
        (["evaluate", "--config", "c.yaml"], "evaluate: --config says nothing"),
        (["evaluate", "--out-format", "folder"], "evaluate: --out-format says nothing"),
        (["nodes", "p-0.tar", "--max-running", "2"], "only about array, chain"),
        (["array", "p-0.tar", "--source-kind", "ucf101"], "only about chain"),
    ],
)
def test_what_cannot_work_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *words, "--out", "out", "--dry-run"]) == 1
    assert message in capsys.readouterr().err


def test_the_site_decides_after_the_template() -> None:
    site = Site(
        partition="gpu", time="12:00:00", gpus_per_node=8, modules=["cuda/12"], container="run it",
        setup=["source env"], warning_seconds=300, directives=["--constraint=a100"],
    )  # fmt: skip
    text = render(Job(template="nodes", arguments=["a b"]), site, Path("scripts"))
    lines = text.splitlines()
    for line in ("--partition=gpu", "--time=12:00:00", "--gpus-per-node=8", "--constraint=a100"):
        assert f"#SBATCH {line}" in lines
    signals = [line for line in lines if "--signal" in line]
    assert signals[-1] == "#SBATCH --signal=SIGUSR1@300"
    assert lines.index("module load cuda/12") < lines.index("source env")
    assert "export ANTI_I2V_CONTAINER='run it'" in lines and "set -- 'a b'" in lines
    # Directives after the first command are ignored by SLURM in silence.
    first_command = lines.index("set -euo pipefail")
    assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < first_command


@pytest.mark.parametrize("template", ["array", "nodes", "shard", "evaluate"])
def test_srun_hears_of_the_processors_of_a_task(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for name, line in (("srun", 'echo "$SRUN_CPUS_PER_TASK $*"'), ("anti-i2v", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    site = Site(cpus_per_task=6)
    text = render(Job(template=template, arguments=["a b"]), site, tmp_path)
    assert "#SBATCH --cpus-per-task=6\n" in text
    job = {"SLURM_CPUS_PER_TASK": "6", "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}
    shown = subprocess.run(
        ["bash", "-c", text],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **job},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert shown.startswith("6 --kill-on-bad-exit=1 anti-i2v")


def test_a_chain_shares_the_settings_out() -> None:
    words = ["photos", "samples_per_shard=8", "attack.steps=3", "seed=2"]
    shard, cloak, evaluate = chain_jobs(
        words, Path("out"), Site(), shards=Path("sh"), kind="photos", parts=2, max_running=1
    )
    assert shard.arguments == ["photos", "samples_per_shard=8", "--kind", "photos", "--out", "sh"]
    assert cloak.arguments == ["sh/*.tar", "attack.steps=3", "seed=2", "--out", "out"]
    assert "--array=0-1%1" in cloak.options
    assert any("sh/index.json" in line for line in cloak.setup)
    assert evaluate.arguments == ["out", "verify", "out"]


def test_the_words_of_a_chain_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chain", "photos", "--shards", "sh", "--parts", "8", "--max-running", "4"]
    words += ["--config", "c.yaml", "--out-format", "folder", "--evaluate", "verify out"]
    assert main(["submit", *words, "--out", "out", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --array=0-7%4\n" in shown
    assert "--out out --config c.yaml --out-format folder\n" in shown
    assert "set -- out verify out\n" in shown
