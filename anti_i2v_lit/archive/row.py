"""One line of the manifest: what is known about one photo, and its JSON form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

from anti_i2v_lit.checks import did_you_mean

STATUSES = ("cloaked", "refused", "failed")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one photo.

    Attributes:
        key: stable name of the photo.
        status: "cloaked" (written and verified), "refused" (not possible or too visible) or
            "failed" (something broke).
        reason: why it was refused or failed; empty when cloaked.
        source: path of the original as it was given.
        source_sha256: of the original file's bytes.
        source_mtime_ns: when the original, or the tar that holds it, was last changed before it
            was read, ns since 1970; None where that cannot be asked, and in older rows.
        output: posix path of the cloak relative to the output folder; empty unless cloaked.
        output_sha256: of the cloak file's bytes.
        surrogates: models that it was computed through, `name:path`: those that it was cloaked
            against, then those that transforms inside the loop ran.
        config_sha256: digest of the resolved settings.
        seed: seed of the run.
        steps: optimisation steps taken.
        budget_8bit: budget that was finally used, grey levels of the written file.
        seconds: time spent on this photo.
        loss_first: loss before the first step.
        loss_last: loss of the cloak.
        losses_first: of an ensemble, each surrogate's own part of loss_first, without its weight,
            in the order of `surrogates`; empty for a single one.
        losses_last: the same of loss_last.
        psnr: of the written file against the original, dB; infinite when they are equal.
        ssim: structural similarity, at most 1.
        ciede2000: mean colour difference, CIEDE2000 units.
        lpips: learned perceptual distance, 0 is equal.
        max_change_8bit: largest change of any channel of any pixel, grey levels.
        residual_kept: share of the residual left after a platform's save; 1 is all.
        loss_kept: share of the loss change left after a platform's save; 1 is all.
        recorded: ISO 8601 time in UTC at which the line was written; the ledger fills it in.

    Raises:
        ValueError: unknown status, a number that is none, a cloaked row without output or with
            a non-finite loss, an output path that leaves the folder.
    """

    key: str
    status: str
    reason: str = ""
    source: str = ""
    source_sha256: str = ""
    source_mtime_ns: int | None = None
    output: str = ""
    output_sha256: str = ""
    surrogates: tuple[str, ...] = ()
    config_sha256: str = ""
    seed: int = 0
    steps: int = 0
    budget_8bit: float = 0
    seconds: float = 0
    loss_first: float | None = None
    loss_last: float | None = None
    losses_first: tuple[float, ...] = ()
    losses_last: tuple[float, ...] = ()
    psnr: float | None = None
    ssim: float | None = None
    ciede2000: float | None = None
    lpips: float | None = None
    max_change_8bit: float | None = None
    residual_kept: float | None = None
    loss_kept: float | None = None
    recorded: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(
                f"row {self.key!r}: status must be one of {', '.join(STATUSES)}, "
                f"got {self.status!r}"
            )
        for name in _NUMBERS:
            value = getattr(self, name)
            if value.__class__ is not float and not _is_number(value, name in _REQUIRED):
                raise ValueError(
                    f"row {self.key!r}: {name} must be an int or a float, "
                    f"got {type(value).__name__} {value!r}; convert with float()"
                )
        for name in _TEXTS:
            if getattr(self, name).__class__ is not str:
                raise ValueError(f"row {self.key!r}: {name} must be text")
        if self.output.startswith("/") or (".." in self.output and _climbs(self.output)):
            raise ValueError(f"row {self.key!r}: output must lie in the folder: {self.output!r}")
        if self.status == "cloaked":
            self._check_cloaked()

    def _check_cloaked(self) -> None:
        if not self.output:
            raise ValueError(f"row {self.key!r}: a cloaked photo needs its output path")
        for name in ("loss_first", "loss_last"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"row {self.key!r}: {name} is {value}; a photo whose loss is not finite "
                    "is 'failed', not 'cloaked'"
                )


_FIELDS = tuple(f.name for f in fields(Row))
_KNOWN = frozenset(_FIELDS)
_REQUIRED = frozenset({"seed", "steps", "budget_8bit", "seconds"})
_OPTIONAL = frozenset(f.name for f in fields(Row) if f.type in ("float | None", "int | None"))
_NUMBERS = tuple(n for n in _FIELDS if n in _REQUIRED | _OPTIONAL)
_LISTS = ("surrogates", "losses_first", "losses_last")
_TEXTS = tuple(f.name for f in fields(Row) if f.type == "str")


def encode_row(row: Row) -> bytes:
    """One line of strict JSON with its newline, UTF-8.

    Infinite values become the texts "inf", "-inf" and "nan", which strict JSON lacks. File names
    that are not UTF-8 keep their bytes as escapes.
    """
    data = {name: _storable(getattr(row, name)) for name in _FIELDS}
    line = json.dumps(data, ensure_ascii=False, allow_nan=False)
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(data, allow_nan=False).encode() + b"\n"


def decode_row(line: bytes) -> Row:
    """Read one line.

    Raises:
        ValueError: not JSON, not an object, unknown or missing columns, or values that `Row`
            refuses.
    """
    try:
        data: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not a line of JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    unknown = data.keys() - _KNOWN
    if unknown:
        name = sorted(unknown)[0]
        raise ValueError(
            f"unknown column {name!r}.{did_you_mean(name, _FIELDS)} "
            "The line was edited or written by another version of this program"
        )
    missing = {"key", "status"} - data.keys()
    if missing:
        raise ValueError(f"column {sorted(missing)[0]!r} is missing")
    for name in _NUMBERS:
        value = data.get(name)
        if value.__class__ is str and value in ("inf", "-inf", "nan"):
            data[name] = float(value)
    for name in _LISTS:
        data[name] = tuple(data.get(name, ()))
    return Row(**data)


def _storable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _is_number(value: Any, required: bool) -> bool:
    if value is None:
        return not required
    return isinstance(value, int | float) and not isinstance(value, bool)


def _climbs(path: str) -> bool:
    return ".." in path.split("/")
