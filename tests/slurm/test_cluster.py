"""Jobs of `anti-i2v submit` on a real SLURM of two nodes; a stub does the work.

The real thing comes last, once: SLURM's warning amid a photo, the bytes of one process. One file,
so that all use one cluster.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.status import status
from anti_i2v_lit.cli.main import main
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import load_settings
from slurm.local_cluster import LocalCluster
from tests.conftest import fast_values
from tests.data.shards.making import samples, write
from tests.slurm.holding import NAME, offer
from tests.slurm.jobs import facts, states, submit, wait, wait_over

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).with_name("stub.py")
BIN = Path(sys.executable).parent


@pytest.fixture
def login(cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """A login node: SLURM's programs, a stub called anti-i2v, and a site file."""
    program = tmp_path / "bin" / "anti-i2v"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {STUB} "$@"\n')
    program.chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{program.parent}:{cluster.environment['PATH']}")
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    monkeypatch.chdir(tmp_path)
    # Two gigabytes: other jobs fit beside, and a node is full with two.
    (tmp_path / "site.yaml").write_text(
        "partition: main\ngpus_per_node: 0\ncpus_per_task: 2\nwarning_seconds: 30\n"
    )
    for number in range(4):
        (tmp_path / f"p-{number}.tar").touch()
    wait(cluster.healthy, "all nodes are up")
    return cluster


def run(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Submit; the ids of the jobs."""
    code = main(["submit", *words, "--out", "out", "--site", "site.yaml"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return re.findall(r"^job (\d+):", shown.out, re.MULTILINE)


def life(name: str) -> list[str]:
    path = Path("out", name)
    return path.read_text().splitlines() if path.exists() else []


def stepped(name: str, least: int = 4) -> bool:
    lines = life(name)
    return bool(lines) and int(lines[-1].split()[-1]) >= least


def test_an_array_does_every_part(login: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = run(capsys, "array", "p-{0..3}.tar", "--parts", "4", "--max-running", "2", "code=2")
    # 2: some photos were refused, which is no failure of the job.
    assert wait_over(login, job) == ["COMPLETED"] * 4
    names = sorted(path.name for path in Path("out").glob("done-*"))
    assert names == [f"done-{index}of4-0" for index in range(4)]
    assert len(list(Path("out/.anti_i2v/slurm/logs").glob(f"array-{job}_*.out"))) == 4


def test_logs_lie_in_a_folder_of_any_name(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    out = 'my "50%d" cloaks'
    assert main(["submit", "array", "p-0.tar", "--out", out, "--site", "site.yaml"]) == 0
    (job,) = re.findall(r"^job (\d+):", capsys.readouterr().out, re.MULTILINE)
    assert wait_over(login, job) == ["COMPLETED"]
    assert Path(out, ".anti_i2v", "slurm", "logs", f"array-{job}_0.out").is_file()


def test_the_warning_requeues_a_job_over_two_nodes_which_continues(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = run(capsys, "nodes", "p-0.tar", "steps=8", "holds=4", "--nodes", "2")
    wait(lambda: stepped("part-all-rank-0") and stepped("part-all-rank-1"), "both tasks work")
    login.run("scancel", "--signal=USR1", job)
    assert wait_over(login, job) == ["COMPLETED"]
    assert facts(login, job)["Restarts"] == "1"
    for rank in (0, 1):
        first, second = life(f"part-all-rank-{rank}")
        assert first.startswith("restarts 0") and second.startswith("restarts 1")
        assert f"from {first.split()[-1]} to 8" in second
    assert {life(f"part-all-rank-{rank}")[0].split()[3] for rank in (0, 1)} == {"n1", "n2"}


def test_a_task_that_is_killed_runs_again(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = run(capsys, "array", "p-{0..1}.tar", "--parts", "1", "steps=6", "dies=3")
    assert wait_over(login, job) == ["COMPLETED"]
    assert facts(login, f"{job}_0")["Restarts"] == "1"
    assert "from 3 to 6" in life("part-0of1-rank-0")[1]


def test_a_node_that_dies_and_a_controller_that_restarts(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = run(capsys, "array", "p-0.tar", "--parts", "1", "steps=8", "holds=4")
    wait(lambda: stepped("part-0of1-rank-0"), "the task works")
    node = life("part-0of1-rank-0")[0].split()[3]
    login.kill_node(node)
    login.restart_controller()
    assert wait_over(login, job) == ["COMPLETED"]
    login.start_node(node)
    first, second = life("part-0of1-rank-0")
    assert f"from {first.split()[-1]} to 8" in second and f"on {node}" not in second


def test_a_preempted_job_continues_when_it_may(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("site.yaml").write_text("partition: scavenge\ngpus_per_node: 0\ncpus_per_task: 2\n")
    (job,) = run(capsys, "array", "p-0.tar", "--parts", "1", "steps=8", "holds=4")
    wait(lambda: stepped("part-0of1-rank-0"), "the task works")
    script = Path("urgent.sh")
    script.write_text("#!/bin/sh\nsleep 1\n")
    submit(login, script, "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null")
    assert wait_over(login, job) == ["COMPLETED"]
    assert len(life("part-0of1-rank-0")) == 2


def test_a_chain_runs_in_order(login: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = run(capsys, "chain", "photos", "--shards", "sh", "--parts", "2")
    assert [wait_over(login, job) for job in jobs] == [
        ["COMPLETED"], ["COMPLETED"] * 2, ["COMPLETED"],
    ]  # fmt: skip
    assert Path("out/verified").exists()


@pytest.mark.parametrize("word", ["fails=1", "forgets=1"])
def test_a_chain_ends_with_the_first_failure(
    login: LocalCluster, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    jobs = run(capsys, "chain", "photos", word, "--shards", "sh", "--parts", "1")
    wait(lambda: set(states(login, jobs[-1])) == {"CANCELLED"}, "the rest is cancelled")
    expected = {"fails=1": "CANCELLED", "forgets=1": "FAILED"}[word]
    assert wait_over(login, jobs[1]) == [expected]
    assert not Path("out/verified").exists() and not list(Path("out").glob("done-*"))


def test_an_incomplete_folder_is_not_evaluated(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    (job,) = run(capsys, "evaluate")
    assert wait_over(login, job) == ["FAILED"]
    assert not Path("out/verified").exists()


def test_what_slurm_refuses_is_not_queued(
    login: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("site.yaml").write_text("partition: nowhere\n")
    words = ["submit", "nodes", "p-0.tar", "--out", "out", "--site", "site.yaml"]
    assert main(words) == 1
    assert "is refused" in capsys.readouterr().err
    assert login.run("squeue", "-h", "-t", "PD") == ""


def test_a_dead_controller_is_told_at_once(
    login: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Path("dead.conf").absolute()
    text = login.config.read_text()
    dead.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", text))
    monkeypatch.setenv("SLURM_CONF", str(dead))
    assert main(["submit", "nodes", "p-0.tar", "--out", "out"]) == 1
    assert "controller is down" in capsys.readouterr().err


def test_the_templates_are_scripts_that_bash_accepts() -> None:
    for path in sorted((ROOT / "slurm").glob("*.sbatch")):
        subprocess.run(["bash", "-n", str(path)], check=True)


def in_flight(out: Path, step: int) -> bool:
    """Whether both nodes have saved a photo at this step or beyond."""
    found = [g.facts for g in InFlightStore(out).peek() if int(g.facts["step"]) >= step]
    return {f["where"]["node"] for f in found} == {"n1", "n2"}


@pytest.mark.timeout(3000)
@pytest.mark.skipif(not (BIN / "anti-i2v").exists(), reason="the package's command is missing")
def test_a_job_over_two_nodes_is_warned_and_ends_with_the_bytes_of_one_process(
    cluster: LocalCluster,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = fast_values(tiny_checkpoint)
    values["attack"] = {**values["attack"], "steps": 30, "checkpoint_every": 5}  # type: ignore[dict-item]
    values["objectives"] = [{"name": NAME}]
    plug_in = offer(tmp_path / "plug_in")
    monkeypatch.syspath_prepend(plug_in)
    monkeypatch.setenv("PYTHONPATH", f"{plug_in}:{ROOT}")
    (tmp_path / "cloak.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "site.yaml").write_text("gpus_per_node: 0\ncpus_per_task: 1\n")
    for number in range(2):
        write(tmp_path / f"p-{number}.tar", samples(1, start=number))
    out, shards = tmp_path / "out", f"{tmp_path}/p-{{0..1}}.tar"
    monkeypatch.setenv("PATH", f"{BIN}:{cluster.environment['PATH']}")
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["--config", str(tmp_path / "cloak.yaml"), "--site", str(tmp_path / "site.yaml")]
    assert main(["submit", "nodes", shards, "--nodes", "2", "--out", str(out), *options]) == 0
    job = capsys.readouterr().out.split()[1].rstrip(":")
    wait(lambda: in_flight(out, 5), "both nodes have saved")
    while_running = status(out)
    cluster.run("scancel", "--signal=USR1", job)
    assert while_running.running and while_running.workers[0].owner.place.job == job
    assert f"job {job}, task 1" in while_running.render()
    assert wait_over(cluster, job) == ["COMPLETED"]
    log = (out / ".anti_i2v" / "slurm" / "logs" / f"nodes-{job}.out").read_text()
    assert facts(cluster, job)["Restarts"] == "1", log
    assert main(["status", str(out), "--require", "complete"]) == 0
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 2 == len(Ledger(out).rows())
    alone = load_settings(values=values)
    assert cloak(alone, photos=[shards], out=tmp_path / "alone") == 0
    for number in range(2):
        name = f"p-{number}.tar"
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
