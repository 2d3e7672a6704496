"""Which protections a table compares: read from YAML, made through the product, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from anti_i2v_lit.bench.noise import write_noise
from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.cloaking.build import build_surrogates
from anti_i2v_lit.cloaking.transforms import transform_models
from anti_i2v_lit.config import digest, parse_config
from anti_i2v_lit.data.folder import SourceFile, scan
from anti_i2v_lit.evaluation.knowledge import took_part
from anti_i2v_lit.evaluation.model_files import rows_digest
from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings, load_settings

NOISE = "noise"


@dataclass(kw_only=True)
class TablePlan:
    """One table.

    Attributes:
        title: heading of the table.
        reference: variant that the paired differences are taken to.
        noise: whether random sign noise of the same budget is a row.
        sort: column to sort by, best protected first; empty keeps the order of the file.
        generator: {name, <fields>} of the attacker's model.
        generators: label -> {name, <fields>} of several attackers' models, in place of
            `generator`: the protections are made once and judged by each.
        purifications: what happens to a file first: purifications, each at its full severity,
            gauntlets with all their rows, and single rows by their labels; "none" is nothing.
        prompts: texts of the clips.
        shared: settings under all variants.
        variants: name -> settings on top of the defaults and of `shared`.
    """

    title: str = "Protection"
    reference: str = ""
    noise: bool = False
    sort: str = ""
    generator: dict[str, Any] = field(
        default_factory=lambda: {"name": "cogvideox", "path": "embedded"}
    )
    generators: dict[str, Any] = field(default_factory=dict)
    purifications: list[str] = field(default_factory=lambda: ["none", "platform"])
    prompts: list[str] = field(default_factory=lambda: ["the person talks"])
    shared: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a table without rows or with an unknown reference."""
        if not self.variants:
            raise ValueError("variants: expected at least one name with settings")
        if self.reference not in self.rows:
            raise ValueError(f"reference {self.reference!r} is none of {', '.join(self.rows)}")
        if not self.purifications:
            raise ValueError("purifications: expected at least one name, such as none")
        for label, node in self.generators.items():
            if not isinstance(node, Mapping) or "name" not in node:
                raise ValueError(
                    f"generators.{label}: expected {{name: ..., <fields>}}, got {node!r}"
                )

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of all protections, in the order of the table."""
        return (*((NOISE,) if self.noise else ()), *self.variants)

    @property
    def attackers(self) -> dict[str, dict[str, Any]]:
        """Label -> {name, <fields>} of every attacker's model."""
        given = self.generators or {str(self.generator.get("name")): self.generator}
        return {label: dict(node) for label, node in given.items()}


class Interrupted(Exception):
    """A run was stopped by a signal; the same command continues."""


def read_plan(path: Path) -> TablePlan:
    """Read a table's YAML file.

    Raises:
        ValueError: no such file, not YAML, or unknown fields.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give --list FILE or the name of a table")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    fields = {k: {n: s or {} for n, s in v.items()} if k == "variants" else v
              for k, v in given.items()}  # fmt: skip
    return parse_config(TablePlan, fields, where=str(path))


def variant_settings(plan: TablePlan, overrides: Sequence[str]) -> dict[str, Settings]:
    """Name -> settings: defaults, `shared`, the variant, then the command line.

    Raises:
        ValueError: settings that the product refuses; names the variant.
    """
    found = {}
    for name, values in plan.variants.items():
        merged = OmegaConf.to_container(OmegaConf.merge(plan.shared, values or {}))
        assert isinstance(merged, dict)
        try:
            found[name] = load_settings(
                values={str(k): v for k, v in merged.items()}, overrides=overrides
            )
        except ValueError as error:
            raise ValueError(f"variant {name}: {error}") from error
    return found


def choose_photos(folder: Path, out: Path, count: int) -> tuple[SourceFile, ...]:
    """`count` photos of a folder, evenly spaced by name; 0 takes all.

    Raises:
        ValueError: no photos, or two with the same file name.
    """
    check_at_least(count, 0, "--count")
    found = scan([str(folder)], out).sources
    count = min(count or len(found), len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    return scan([str(source.path) for source in chosen], out).sources


def protected_folder(out: Path, name: str, settings_digest: str) -> Path:
    """Where a row's protected photos lie; other settings have another folder."""
    return out / "protected" / f"{name}-{settings_digest[:8]}"


def make_protections(
    plan: TablePlan,
    photos: Sequence[SourceFile],
    out: Path,
    overrides: Sequence[str],
    listener: Callable[[str], None],
) -> dict[str, Path]:
    """Cloak the photos with every variant; finished folders cost nothing.

    A folder's name carries a digest of its settings and of the model's files, so an edited
    variant or a newer model gets a folder of its own.

    Raises:
        Interrupted: a run was stopped by a signal.
    """
    settings = variant_settings(plan, overrides)
    folders: dict[str, Path] = {}
    if plan.noise:
        shared = load_settings(values=plan.shared, overrides=overrides)
        view_size = _view_size(shared)
        noise_digest = digest([shared.seed, shared.plain(), list(view_size)])
        folders[NOISE] = protected_folder(out, NOISE, noise_digest)
        listener(f"{NOISE}: {len(photos)} photos")
        write_noise(photos, folders[NOISE], shared, view_size)
    for name, chosen in settings.items():
        folders[name] = protected_folder(out, name, chosen.digest())
        listener(f"{name}: {len(photos)} photos, {chosen.attack.steps} steps")
        paths = [str(photo.path) for photo in photos]
        if cloak(chosen, photos=paths, out=folders[name]) == EXIT_INTERRUPTED:
            raise Interrupted(name)
    return folders


def known_models(plan: TablePlan, overrides: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Protection -> labels of the generators that it was computed against (white box).

    Models are compared by their weight files, as `evaluate` does: another path to a copy is the
    same model, and in doubt nothing is called held-out.
    """
    found: dict[str, tuple[str, ...]] = {NOISE: ()}
    for name, settings in variant_settings(plan, overrides).items():
        models = [f"{node['name']}:{node.get('path', '')}" for node in settings.surrogates]
        models += transform_models(settings.attack.transforms)
        found[name] = tuple(
            label for label, node in plan.attackers.items() if took_part(models, node)
        )
    return found


def fingerprint(node: Mapping[str, Any]) -> str:
    """Digest of a component's settings and of the files behind its `path`."""
    return digest([dict(node), rows_digest(str(node["name"]), str(node.get("path", "")))])


def _view_size(settings: Settings) -> tuple[int, int]:
    """The largest view of the surrogates; it decides the size of the canvas."""
    loaded = build_surrogates(settings.surrogates, "cpu")
    return max((s.surrogate.view_size for s in loaded), key=lambda size: size[0] * size[1])
