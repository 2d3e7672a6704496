"""The real thing once: two nodes, SLURM's warning amid a photo, the bytes of one process."""

from __future__ import annotations

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
from tests.slurm.jobs import facts, wait, wait_over

BIN = Path(sys.executable).parent


def in_flight(out: Path, step: int) -> bool:
    """Whether both nodes have saved a photo at this step or beyond."""
    found = [g.facts for g in InFlightStore(out).peek() if int(g.facts["step"]) >= step]
    return {f["where"]["node"] for f in found} == {"n1", "n2"}


@pytest.mark.skipif(not (BIN / "anti-i2v").exists(), reason="the package's command is missing")
def test_a_job_over_two_nodes_is_warned_and_ends_with_the_bytes_of_one_process(
    cluster: LocalCluster,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = fast_values(tiny_checkpoint)
    values["attack"] = {**values["attack"], "steps": 60, "checkpoint_every": 5}  # type: ignore[dict-item]
    values["objectives"] = [{"name": "ira_latent", "direction": "away"}]
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
    wait(lambda: in_flight(out, 5), "both nodes have saved", 270)
    while_running = status(out)
    cluster.run("scancel", "--signal=USR1", job)
    assert while_running.running and while_running.workers[0].owner.place.job == job
    assert f"job {job}, task 1" in while_running.render()
    assert wait_over(cluster, job, 270) == ["COMPLETED"]
    log = (out / ".anti_i2v" / "slurm" / "logs" / f"nodes-{job}.out").read_text()
    assert facts(cluster, job)["Restarts"] == "1", log
    assert "saved and requeued" in log
    assert main(["status", str(out), "--require", "complete"]) == 0
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 2 == len(Ledger(out).rows())
    alone = load_settings(values=values)
    assert cloak(alone, photos=[shards], out=tmp_path / "alone") == 0
    for number in range(2):
        name = f"p-{number}.tar"
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
