"""The direction of dependence between rooms, read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "anti_i2v_lit"
BASICS = {
    "__init__", "types", "checks", "registry", "config", "seeds", "checkpoints", "miniatures",
    "tars", "exit_codes", "rank_loss",
}  # fmt: skip
LEAVES = BASICS | {"ops", "backbones"}
ALLOWED = {
    "ops": LEAVES,
    "backbones": LEAVES,
    "spaces": LEAVES,
    "surrogates": LEAVES,
    # Generators of models that diffusers lacks run the networks that surrogates/ writes out.
    "generators": LEAVES | {"surrogates"},
    "purifications": LEAVES,
    "metrics": LEAVES,
    "data": LEAVES,
    "objectives": LEAVES | {"surrogates"},
    "cloaking": LEAVES | {"spaces", "surrogates", "purifications", "metrics", "data", "objectives"},
    "archive": LEAVES,
    # Job scripts are rendered on login nodes: nothing of torch, not even the small modules.
    "slurm": {"__init__"},
    "report": LEAVES | {"archive", "evaluation"},
    "settings": LEAVES
    | {"spaces", "surrogates", "purifications", "data", "objectives", "cloaking"},
    "evaluation": LEAVES
    | {"surrogates", "generators", "purifications", "metrics", "data"}
    | {"archive"},
    "lit": LEAVES
    | {"spaces", "surrogates", "data", "objectives", "cloaking", "archive", "report", "settings"}
    | {"slurm", "evaluation"},
}
# What runs the product as a whole may see all of it.
TOP = {"cli", "bench", "__main__"}
HEAVY_ONLY_IN = {
    "lightning": {"lit", "surrogates", "purifications", "bench", "cli", "report"},
    "diffusers": {"surrogates", "generators", "purifications", "miniatures", "checkpoints"}
    | {"bench"},
}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((PACKAGE.parent / "slurm").rglob("*.py"))


def test_files_were_found() -> None:
    assert len(FILES) > 60 and len(SCRIPTS) > 1


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_what_lies_below(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "anti_i2v_lit" and room not in TOP and room not in BASICS:
            target = parts[1] if len(parts) > 1 else "__init__"
            assert target == room or target in ALLOWED[room], f"{path} imports {name}"
        if parts[0] in HEAVY_ONLY_IN:
            assert room in HEAVY_ONLY_IN[parts[0]], f"{path} imports {name}"


def test_the_judge_does_not_know_the_defence() -> None:
    for path in (PACKAGE / "evaluation").rglob("*.py"):
        names = imports_of(path)
        assert not any(
            n.startswith(("anti_i2v_lit.objectives", "anti_i2v_lit.cloaking")) for n in names
        )


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_house_numbers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, f"{path} has more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{path}:{node.lineno} {node.name} has {lines} lines"
