"""All settings of a cloak run: defaults, YAML with one `include`, `section.field=value`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anti_i2v_lit.checkpoints import files_digest, model_digest
from anti_i2v_lit.checks import check_at_least, check_in
from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.ensemble import EnsembleConfig
from anti_i2v_lit.cloaking.gate import GateConfig
from anti_i2v_lit.cloaking.references import reference_files
from anti_i2v_lit.cloaking.transforms import build_transforms
from anti_i2v_lit.config import (
    check_sections,
    deciding,
    digest,
    parse_config,
    parse_override,
    read_sections,
)
from anti_i2v_lit.data.faces import FaceConfig
from anti_i2v_lit.data.framing import FramingConfig
from anti_i2v_lit.data.reading import ReadingConfig
from anti_i2v_lit.data.writing import OutputConfig
from anti_i2v_lit.objectives import OBJECTIVES
from anti_i2v_lit.registry import Registry
from anti_i2v_lit.spaces import SPACES
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.sharding import SHARDERS

STRATEGIES = ("photo_parallel", *SHARDERS.table)
SECTIONS: dict[str, type[Any]] = {
    "attack": AttackConfig,
    "ensemble": EnsembleConfig,
    "framing": FramingConfig,
    "faces": FaceConfig,
    "gate": GateConfig,
    "reading": ReadingConfig,
    "output": OutputConfig,
}
# How a run is carried out; these change no byte of a cloak.
EXECUTION = ("trainer", "strategy")
ATTACK_EXECUTION = ("checkpoint_every", "encoder_first")
ENSEMBLE_EXECUTION = ("layout", "waiting")


def default_surrogates() -> list[dict[str, Any]]:
    """The embedded model alone."""
    return [{"name": "cogvideox", "path": "embedded", "weight": 1.0}]


def default_objectives() -> list[dict[str, Any]]:
    """The terms chosen by the search in docs/tables.md."""
    return [
        {"name": "denoising", "weight": 1.0},
        {"name": "irc", "weight": 0.1},
        {"name": "ira_denoiser", "weight": 0.1, "direction": "away"},
        {"name": "ira_latent", "weight": 1.0, "direction": "away"},
    ]


def default_space() -> dict[str, Any]:
    """Both spaces at every step; their defaults come from the search in docs/tables.md."""
    return {"name": "dual"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Resolved settings; every node carries all fields of its component.

    Attributes:
        seed: seed of all randomness.
        surrogates: {name, weight, objectives, <fields>} per white-box model; one without
            objectives of its own takes those below.
        space: {name, <fields>}.
        objectives: {name, weight, <fields>} per term.
        attack: the attack.
        ensemble: how several surrogates work together; without effect when there is one.
        framing: canvas and views.
        faces: face detector.
        gate: visibility limits.
        reading: limits on input files.
        output: how files are written.
        strategy: what devices share: "photo_parallel" nothing, each has whole surrogates;
            "zero3", "zero3_offload" and "fsdp2" the weights of the surrogates.
        trainer: arguments handed to Lightning's Trainer as they are.
    """

    seed: int = 0
    surrogates: list[dict[str, Any]] = field(default_factory=default_surrogates)
    space: dict[str, Any] = field(default_factory=default_space)
    objectives: list[dict[str, Any]] = field(default_factory=default_objectives)
    attack: AttackConfig = field(default_factory=AttackConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    framing: FramingConfig = field(default_factory=FramingConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    strategy: str = "photo_parallel"
    trainer: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Everything as plain data, ready for YAML or JSON."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of a cloak: part of `plain`, and the files that it names."""
        plain = {k: v for k, v in deciding(self.plain()).items() if k not in EXECUTION}
        plain["models"] = [
            model_digest(node["name"], str(node.get("path", ""))) for node in self.surrogates
        ]
        plain["attack"] = {k: v for k, v in plain["attack"].items() if k not in ATTACK_EXECUTION}
        if self.attack.references:
            plain["references"] = files_digest(reference_files(self.attack.references))
        anchor = Path(self.attack.anchor).expanduser()
        if anchor.is_file():
            plain["anchor"] = files_digest([anchor])
        ensemble = plain.pop("ensemble")
        if len(self.surrogates) > 1:
            plain["ensemble"] = {k: v for k, v in ensemble.items() if k not in ENSEMBLE_EXECUTION}
        return plain

    def digest(self) -> str:
        """SHA-256 of `identity`."""
        return digest(self.identity())


def load_settings(
    path: Path | str | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings: defaults, then a YAML file, then `values`, then `section.field=value`.

    Args:
        path: YAML file, which may name one other file under `include` (relative to itself).
        overrides: command-line overrides, e.g. `attack.steps=50` or `objectives.0.weight=2`.
        values: nested plain values, for programs.

    Raises:
        ValueError: unknown section, field, component or value, with the nearest known one.
    """
    merged: Any = OmegaConf.create(_defaults())
    given = _read(Path(path)) if path is not None else {}
    check_sections(Settings, given, str(path))
    check_sections(Settings, values or {}, "values")
    try:
        merged = _merge(_merge(merged, given), dict(values or {}))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ValueError(f"{path or 'values'}: {str(error).splitlines()[0]}") from error
    for override in overrides:
        merged = _override(merged, override)
    plain = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(plain, dict)
    return resolve({str(k): v for k, v in plain.items()})


def resolve(plain: Mapping[str, Any]) -> Settings:
    """Check plain values and fill every component's defaults.

    Raises:
        ValueError: as `load_settings`.
    """
    check_sections(Settings, plain, "settings")
    fields: dict[str, Any] = dict(plain)
    _check_kinds(fields)
    for name, cls in SECTIONS.items():
        fields[name] = parse_config(cls, fields.get(name) or {}, where=name)
    fields["surrogates"] = [_surrogate_node(n) for n in fields.get("surrogates", [])]
    fields["ensemble"].check_weights([n["weight"] for n in fields["surrogates"]])
    fields["objectives"] = [_node(OBJECTIVES, n) for n in fields.get("objectives", [])]
    fields["space"] = _node(SPACES, fields.get("space", {}))
    check_in(fields["strategy"], STRATEGIES, "strategy")
    fields["trainer"] = fields.get("trainer") or {}
    _check_trainer(fields["trainer"])
    build_transforms(fields["attack"].transforms)
    return Settings(**fields)


def _check_kinds(fields: Mapping[str, Any]) -> None:
    """Refuse a list where a mapping belongs, and so on, before anybody looks inside."""
    for name in (*SECTIONS, "space", "trainer"):
        if not isinstance(fields.get(name) or {}, Mapping):
            raise ValueError(f"{name}: expected fields with values, got {fields[name]!r}")
    for name in ("surrogates", "objectives"):
        nodes = fields.get(name)
        if not isinstance(nodes, list) or not nodes or not all(isinstance(n, dict) for n in nodes):
            raise ValueError(
                f"{name}: expected a list of {{name: ..., <fields>}} with at least one entry, "
                f"got {nodes!r}"
            )
    seed = fields.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed must be a whole number, got {seed!r}")


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    precision = trainer.get("precision", "32-true")
    if str(precision) not in {"32-true", "32"}:
        raise ValueError(
            f"trainer.precision must stay '32-true', got {precision!r}: the perturbation is "
            "float32. Set the surrogate's own dtype instead: surrogates.0.dtype=bfloat16"
        )
    if "strategy" in trainer:
        raise ValueError(
            "trainer.strategy: Lightning's own strategies average the perturbations of different "
            f"photos; use strategy={STRATEGIES[0]}, which is the default"
        )


def _defaults() -> dict[str, Any]:
    return Settings().plain()


def _node(registry: Registry[Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """Fill a component node with all fields of its Config."""
    fields = dict(node)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"{registry.seam}: a 'name' is needed, one of {', '.join(registry.names())}"
        )
    cls: Any = registry.load(name)
    config = parse_config(cls.Config, fields, where=f"{registry.seam} {name!r}")
    return {"name": name, **dataclasses.asdict(config)}


def _surrogate_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """A surrogate with its weight and, if it brings any, its own objectives."""
    fields = dict(node)
    weight = fields.pop("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise ValueError(f"surrogates.weight must be a number, got {weight!r}")
    weight = float(weight)
    check_at_least(weight, 0.0, "surrogates.weight")
    objectives = fields.pop("objectives", None) or []
    if not isinstance(objectives, list) or not all(isinstance(n, dict) for n in objectives):
        raise ValueError(
            f"surrogates.objectives: expected a list of {{name: ..., <fields>}}, got {objectives!r}"
        )
    own = {"objectives": [_node(OBJECTIVES, n) for n in objectives]} if objectives else {}
    return {**_node(SURROGATES, fields), "weight": weight, **own}


def _read(path: Path) -> dict[str, Any]:
    given = read_sections(path)
    include = given.pop("include", None)
    if include is None:
        return given
    parent = OmegaConf.create(_read(path.parent / str(include)))
    both = OmegaConf.to_container(_merge(parent, given))
    assert isinstance(both, dict)
    return {str(k): v for k, v in both.items()}


def _merge(base: Any, given: Mapping[str, Any]) -> Any:
    """Lay `given` over `base`; another space takes none of the former one's fields."""
    space = given.get("space")
    named = space.get("name") if isinstance(space, Mapping) else None
    if named is not None and named != OmegaConf.select(base, "space.name"):
        base = OmegaConf.merge(base, {})
        base.space = {}
    return OmegaConf.merge(base, given)


def _override(merged: Any, override: str) -> Any:
    """Apply one `a.b=c`; `a.0.b=c` reaches into lists."""
    key, value = parse_override(Settings, override)
    try:
        node, _, field_name = key.rpartition(".")
        if field_name == "name" and value != OmegaConf.select(merged, key):
            # Another component: the former one's fields mean nothing to it.
            key, value = node, {"name": value}
        OmegaConf.update(merged, key, value, merge=False, force_add=True)
    except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"override {override!r}: {str(error).splitlines()[0]}") from error
    return merged
