"""Every command of the README runs (with two steps instead of 200), and its Python as well."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.cli.main import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = ["attack.steps=2", "attack.num_draws=1", "attack.num_verification_draws=1"]
ONE_CLIP = ["seeds=[0]", "sampling_steps=1", "gauntlet=none"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.strip().splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("anti-i2v ")]


@pytest.fixture
def work(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.rmtree(photo_folder / "sub")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(work: Path) -> None:
    found = commands()
    assert len(found) >= 10
    for words in found:
        quick = {"cloak": QUICK, "evaluate": ONE_CLIP}.get(words[1], [])
        extra = ["--trial-steps", "0"] if words[1] == "plan" else []
        assert main([*words[1:], *quick, *extra]) == 0, " ".join(words)


def test_the_install_commands_name_what_exists() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    install = [line for line in lines if "pip install" in line]
    assert len(install) == 2
    assert "anti-i2v demo --out demo" in install[0]
    test = "-m pytest -n 2"
    assert "'.[test]'" in install[1] and install[1].endswith(f"bin/python {test}")
    checked = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert checked.endswith(f'bin/python" {test}\n'), "what is said here is what is checked"


def test_the_demo_command_runs(work: Path) -> None:
    assert main(["demo", "--out", "demo", "--sampling-steps", "2", *QUICK]) in (0, 2)
    assert (work / "demo" / "demo.png").is_file()


def test_the_python_program_runs(work: Path) -> None:
    (program,) = blocks("python")
    source = program.replace('"attack.steps=200"', ", ".join(f'"{word}"' for word in QUICK))
    exec(compile(source, "README.md", "exec"), {})
    rows = Ledger(work / "cloaked_by_python").rows()
    assert {row.status for row in rows.values()} == {"cloaked"}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target
