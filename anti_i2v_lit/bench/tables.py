"""One command per table of the docs: protect, evaluate, write Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from anti_i2v_lit import __version__
from anti_i2v_lit.bench.plan import (
    TablePlan,
    choose_photos,
    fingerprint,
    known_models,
    make_protections,
)
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.evaluation.judge import build_judge, weights_folder
from anti_i2v_lit.evaluation.run import NO_PURIFICATION, Evaluation, Evaluator, Trials
from anti_i2v_lit.evaluation.store import ResultStore
from anti_i2v_lit.evaluation.tables import csv_text, markdown, sort_rows, summarise
from anti_i2v_lit.evaluation.transfer import csv_by_generator, matrix
from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.base import VideoGenerator
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.base import Purification


@dataclass(kw_only=True)
class TableOptions:
    """How much is measured.

    Attributes:
        count: photos, evenly spaced by name; 0 for all.
        sampling_steps: denoising steps per clip; 0 for the plan's.
        num_seeds: clips per photo, prompt and purification.
        batch_size: clips made together.
        purifications: names; "none" for nothing. Each runs at its full severity.
        weights: folder of the judges' weights; None for $ANTI_I2V_DATA/models or ../shared/data.
    """

    count: int = 0
    sampling_steps: int = 0
    num_seeds: int = 1
    batch_size: int = 4
    purifications: list[str] = field(default_factory=lambda: [NO_PURIFICATION, "platform"])
    weights: Path | None = None

    def __post_init__(self) -> None:
        """Refuse counts below their minimum."""
        check_at_least(self.num_seeds, 1, "--seeds")
        check_at_least(self.sampling_steps, 0, "--sampling-steps")
        if not self.purifications:
            raise ValueError("--purify: expected at least one name, such as none")


def make_table(
    plan: TablePlan,
    *,
    photos: Path,
    out: Path,
    overrides: Sequence[str],
    options: TableOptions,
    listener: Callable[[str], None],
) -> Path:
    """Make a table; whatever was made before is kept and not made again.

    Args:
        plan: which protections.
        photos: folder of clean photos.
        out: folder for protected photos, results and the table.
        overrides: settings of all variants, `section.field=value`.
        options: how much is measured.
        listener: told in a sentence what is being done.

    Returns:
        The Markdown file; a CSV file of the same name lies beside it.

    Raises:
        ValueError: wrong settings or photos.
        Interrupted: stopped by a signal; the same call continues.
    """
    chosen = choose_photos(photos, out, options.count)
    nodes = {
        label: _with_steps(node, options.sampling_steps) for label, node in plan.attackers.items()
    }
    # All of them first: a missing model must not show after hours of cloaking.
    generators = {label: GENERATORS.build(node) for label, node in nodes.items()}
    folders = make_protections(plan, chosen, out, overrides, listener)
    found = {
        label: _judged(
            generators[label], node, chosen, folders, out, plan.prompts, options, listener
        )
        for label, node in nodes.items()
    }
    facts = _facts(plan, folders, len(chosen), nodes, options, overrides)
    if len(found) == 1:
        (only,) = found.values()
        return _write(plan, only, facts, out, reference=plan.reference)
    return _write_transfer(plan, found, facts, out, overrides)


def _with_steps(node: Mapping[str, Any], sampling_steps: int) -> dict[str, Any]:
    return {**node, "num_inference_steps": sampling_steps} if sampling_steps else dict(node)


def _judged(
    generator: VideoGenerator,
    node: Mapping[str, Any],
    photos: Sequence[SourceFile],
    folders: Mapping[str, Path],
    out: Path,
    prompts: Sequence[str],
    options: TableOptions,
    listener: Callable[[str], None],
) -> Evaluation:
    """What one attacker's model makes of all protections."""
    listener(f"generator {node['name']}")
    return Evaluator(
        photos=photos,
        generator=generator,
        generator_identity={"model": fingerprint(node)},
        judge=build_judge(weights_folder(options.weights), generator.encode),
        purifications={name: _purification(name) for name in options.purifications},
        trials=Trials(
            prompts=list(prompts),
            seeds=list(range(options.num_seeds)),
            batch_size=options.batch_size,
        ),
        store=ResultStore(out / "results"),
        listener=listener,
    ).run(folders)


def _purification(name: str) -> Purification | None:
    return None if name == NO_PURIFICATION else PURIFICATIONS.build({"name": name})


def _facts(
    plan: TablePlan,
    folders: Mapping[str, Path],
    num_photos: int,
    nodes: Mapping[str, Mapping[str, Any]],
    options: TableOptions,
    overrides: Sequence[str],
) -> list[str]:
    generators = [
        "generator: "
        + ", ".join(f"{name}={value}" for name, value in node.items())
        + f"; model files and settings {fingerprint(node)[:12]}"
        for node in nodes.values()
    ]
    return [
        f"{num_photos} photos, {options.num_seeds} seed(s) each, prompts: "
        + "; ".join(f'"{prompt}"' for prompt in plan.prompts),
        *generators,
        "settings over the defaults: " + (", ".join(overrides) or "none"),
        "protected folders: " + ", ".join(folder.name for folder in folders.values()),
        f"anti-i2v-lit {__version__}, torch {torch.__version__}",
    ]


def _write(
    plan: TablePlan, found: Evaluation, facts: Sequence[str], out: Path, reference: str
) -> Path:
    rows = summarise(found.results, reference)
    if plan.sort:
        measured = any(plan.sort in row.estimates for row in rows)
        column = plan.sort if measured else "clip_lpips"
        rows = sort_rows(rows, column)
        facts = [*facts, f"sorted by {COLUMNS[column].title}, best protected first"]
    lost = [f"{name}: {', '.join(keys)}" for name, keys in found.missing.items() if keys]
    facts = [*facts, "refused or failed: " + ("; ".join(lost) or "none")]
    head = f"# {plan.title}\n\n" + "\n".join(f"- {fact}" for fact in facts)
    path = out / "table.md"
    path.write_text(f"{head}\n\n{markdown(rows, reference)}", encoding="utf-8")
    path.with_suffix(".csv").write_text(csv_text(rows), encoding="utf-8")
    return path


def _write_transfer(
    plan: TablePlan,
    found: Mapping[str, Evaluation],
    facts: Sequence[str],
    out: Path,
    overrides: Sequence[str],
) -> Path:
    """One table of protections against generators, then everything about each generator."""
    rows = {label: summarise(e.results, plan.reference) for label, e in found.items()}
    lost = {name: keys for e in found.values() for name, keys in e.missing.items() if keys}
    said = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in lost.items())
    head = f"# {plan.title}\n\n" + "\n".join(
        f"- {fact}" for fact in [*facts, "refused or failed: " + (said or "none")]
    )
    parts = [head, matrix(rows, known_models(plan, overrides))]
    parts += [f"# Generator: {label}\n\n{markdown(r, plan.reference)}" for label, r in rows.items()]
    path = out / "table.md"
    path.write_text("\n\n".join(parts), encoding="utf-8")
    path.with_suffix(".csv").write_text(csv_by_generator(rows), encoding="utf-8")
    return path
