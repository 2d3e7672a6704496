"""One command per table of the docs: protect, evaluate, write Markdown and CSV."""

from __future__ import annotations

import json
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
    make_protections,
    protected_folder,
    variant_settings,
)
from anti_i2v_lit.bench.purify import identities_named, purifications_named, rows_named
from anti_i2v_lit.bench.table_pages import write_pages
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.writing import output_names
from anti_i2v_lit.evaluation.judge import build_judge, weights_folder
from anti_i2v_lit.evaluation.run import CLEAN, Evaluator, Trials
from anti_i2v_lit.evaluation.store import ResultStore
from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.base import VideoGenerator


@dataclass(kw_only=True)
class TableOptions:
    """How much is measured.

    Attributes:
        count: photos, evenly spaced by name; 0 for all.
        sampling_steps: denoising steps per clip; 0 for the plan's.
        num_seeds: clips per photo, prompt and purification.
        batch_size: clips made together.
        purifications: names of purifications, each at its full severity, and of gauntlets; "none"
            for nothing. Empty for the plan's.
        weights: folder of the judges' weights; None for $ANTI_I2V_DATA/models or ../shared/data.
    """

    count: int = 0
    sampling_steps: int = 0
    num_seeds: int = 1
    batch_size: int = 4
    purifications: list[str] = field(default_factory=list)
    weights: Path | None = None

    def __post_init__(self) -> None:
        """Refuse counts below their minimum."""
        check_at_least(self.num_seeds, 1, "--seeds")
        check_at_least(self.sampling_steps, 0, "--sampling-steps")

    def names_of(self, plan: TablePlan) -> list[str]:
        """Purifications and gauntlets that are run."""
        return self.purifications or plan.purifications


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much work a table is, done before or not.

    Attributes:
        photo_steps: steps of the attack, photos times steps over all rows.
        photo_steps_left: without those of photos that are cloaked already.
        clips: clips made and judged.
        clips_left: without as many as are kept of these rows and purifications.
    """

    photo_steps: int
    photo_steps_left: int
    clips: int
    clips_left: int


def amount_of(
    plan: TablePlan, *, photos: Path, out: Path, overrides: Sequence[str], options: TableOptions
) -> Amount:
    """Count what `make_table` would do; nothing is made.

    Raises:
        ValueError: wrong settings or photos.
    """
    chosen = choose_photos(photos, out, options.count)
    steps = left = 0
    for name, settings in variant_settings(plan, overrides).items():
        folder = protected_folder(out, name, settings.digest())
        names = output_names([photo.key for photo in chosen], settings.output).values()
        done = sum((folder / name).is_file() for name in names)
        steps += settings.attack.steps * len(chosen)
        left += settings.attack.steps * (len(chosen) - done)
    purifications, rows = rows_named(options.names_of(plan)), (CLEAN, *plan.rows)
    kinds = len(plan.attackers) * len(purifications) * len(rows)
    clips = kinds * len(chosen) * len(plan.prompts) * options.num_seeds
    lines = (line for path in out.glob("results/results*.jsonl") for line in path.open())
    known = [json.loads(line) for line in lines if line.endswith("\n")]
    judged = sum(r["protection"] in rows and r["purification"] in purifications for r in known)
    return Amount(
        photo_steps=steps,
        photo_steps_left=left,
        clips=clips,
        clips_left=max(0, clips - judged),
    )


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
        `table.md`, with `brief.md` and `table.csv` beside it.

    Raises:
        ValueError: wrong settings or photos.
        Interrupted: stopped by a signal; the same call continues.
    """
    chosen = choose_photos(photos, out, options.count)
    rows_named(options.names_of(plan))  # an unknown name must not show after hours of cloaking
    nodes = {
        label: _with_steps(node, options.sampling_steps) for label, node in plan.attackers.items()
    }
    generators = {label: GENERATORS.build(node) for label, node in nodes.items()}
    folders = make_protections(plan, chosen, out, overrides, listener)
    found = {}
    for label, node in nodes.items():
        listener(f"generator {label}")
        evaluator = _evaluator(plan, chosen, generators[label], node, out, options, listener)
        found[label] = evaluator.run(folders)
    facts = _facts(plan, folders, len(chosen), nodes, options, overrides)
    return write_pages(plan, found, facts, out, overrides)


def _evaluator(
    plan: TablePlan,
    photos: Sequence[SourceFile],
    generator: VideoGenerator,
    node: Mapping[str, Any],
    out: Path,
    options: TableOptions,
    listener: Callable[[str], None],
) -> Evaluator:
    """What judges all protections by one attacker's model."""
    names, work_px = options.names_of(plan), min(generator.view_size)
    return Evaluator(
        photos=photos,
        generator=generator,
        generator_identity={"model": fingerprint(node)},
        judge=build_judge(weights_folder(options.weights), generator.encode),
        purifications=purifications_named(names, work_px),
        purification_identities=identities_named(names, work_px),
        trials=Trials(
            prompts=list(plan.prompts),
            seeds=list(range(options.num_seeds)),
            batch_size=options.batch_size,
        ),
        store=ResultStore(out / "results"),
        listener=listener,
    )


def _with_steps(node: Mapping[str, Any], sampling_steps: int) -> dict[str, Any]:
    return {**node, "num_inference_steps": sampling_steps} if sampling_steps else dict(node)


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
        f"purifications: {', '.join(options.names_of(plan))}",
        "protected folders: " + ", ".join(folder.name for folder in folders.values()),
        f"anti-i2v-lit {__version__}, torch {torch.__version__}",
    ]
