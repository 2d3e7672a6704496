"""Handing job scripts to SLURM: checks before anything is queued, one after the other, or none."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PING_SECONDS, _SBATCH_SECONDS = 30.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job in SLURM's queue: its script and its id."""

    script: Path
    job_id: str


def check_slurm() -> None:
    """Refuse to go on without a SLURM that answers.

    Raises:
        ValueError: no SLURM here, or its controller is down; says what to do.
    """
    if shutil.which("sbatch") is None or shutil.which("scontrol") is None:
        raise ValueError(
            "sbatch not found: run this on a login node of a SLURM cluster, use --dry-run to see "
            "the scripts, or run `anti-i2v cloak` without SLURM"
        )
    try:
        answer = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=_PING_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"SLURM's controller does not answer within {_PING_SECONDS:g} s") from None
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip()
        raise ValueError(f"SLURM's controller is down ({said}): try again later")


def submit(scripts: Sequence[tuple[Path, str]]) -> list[Submitted]:
    """Write and submit scripts, each after the success of the one before.

    All are tried first (`sbatch --test-only`). If one cannot be submitted, those before it are
    cancelled.

    Args:
        scripts: (path, text) in order; logs go to `logs` beside each path, which is made here,
            because a job without its log's folder fails before its first line.

    Raises:
        ValueError: SLURM refuses one of them; says which and why.
    """
    check_slurm()
    for path, text in scripts:
        (path.parent / "logs").mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        _sbatch("--test-only", str(path))
    done: list[Submitted] = []
    for path, _ in scripts:
        try:
            words = dependency(done[-1].job_id) if done else []
            answer = _sbatch("--parsable", *words, str(path))
        except ValueError:
            for earlier in done:
                subprocess.run(["scancel", earlier.job_id], capture_output=True, check=False)
            raise
        done.append(Submitted(script=path, job_id=answer.strip().partition(";")[0]))
    return done


def dependency(job_id: str) -> list[str]:
    """Options that make a job wait for the success of another, and leave the queue if it fails."""
    return [f"--dependency=afterok:{job_id}", "--kill-on-invalid-dep=yes"]


def _sbatch(*words: str) -> str:
    command = ["sbatch", *words]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=_SBATCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"`{shlex.join(command)}` does not answer") from None
    if found.returncode != 0:
        raise ValueError(f"`{shlex.join(command)}` is refused: {found.stderr.strip()}")
    return found.stdout
