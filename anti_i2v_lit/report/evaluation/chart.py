"""A chart by frame index as inline SVG, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from anti_i2v_lit.evaluation.outcome import Curve
from anti_i2v_lit.evaluation.statistics import Estimate
from anti_i2v_lit.report.evaluation.curves import Chart
from anti_i2v_lit.report.evaluation.text import number

# One unit is one pixel on a phone of 360 pixels, so the letters keep their size there.
_WIDTH, _HEIGHT = 320, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 312, 12, 176
_TICKS = 4
_NAMES = {"clean": "clean photo", "cloak": "cloak", "noise": "noise of equal size"}


def svg(chart: Chart) -> Markup:
    """Draw a chart: lines of means with their intervals as bands, told apart by dashes too."""
    frames = max(len(curve.points) for _, curve in chart.lines)
    marks = _ticks(chart.low, chart.high)
    low, high = min(marks[0], chart.low), max(marks[-1], chart.high)
    plane = _Plane(frames, low, high)
    parts = [_grid(plane, marks), _links(plane, chart.cloak), _bounds(plane, chart.threshold)]
    parts += [_band(plane, kind, curve.points) for kind, curve in chart.lines]
    parts += [_line(plane, kind, curve.points) for kind, curve in chart.lines]
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, described(chart), Markup("").join(parts))


def described(chart: Chart) -> str:
    """The chart in words, for people who do not see it."""
    parts = [f"{chart.title} by frame, {chart.generator}, after {chart.purification}."]
    for kind, curve in reversed(chart.lines):
        known = [(i, p) for i, p in enumerate(curve.points, 1) if not math.isnan(p.mean)]
        if not known:
            parts.append(f"{_NAMES[kind]}: undefined.")
            continue
        (first, start), (last, end) = known[0], known[-1]
        parts.append(
            f"{_NAMES[kind]}: {number(start.mean, 2)} at frame {first}, "
            f"{number(end.mean, 2)} at frame {last}."
        )
    return " ".join(parts)


class _Plane:
    """Where a frame and a value lie, in units of the picture."""

    def __init__(self, frames: int, low: float, high: float) -> None:
        self.frames, self.low, self.high = frames, low, high

    def x(self, frame: float) -> float:
        """Position of a frame, counted from 0."""
        return _LEFT + 8 + (_RIGHT - _LEFT - 16) * (frame / max(1, self.frames - 1))

    def y(self, value: float) -> float:
        """Position of a value."""
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self.low) / (self.high - self.low)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold the range."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _grid(plane: _Plane, marks: Sequence[float]) -> Markup:
    digits = next(d for d in range(9) if all(abs(m - round(m, d)) < 1e-9 for m in marks))
    parts = []
    for mark in marks:
        y = f"{plane.y(mark):.1f}"
        kind = "axis" if mark == 0 else "grid"
        parts.append(
            Markup('<path class="{}" d="M{} {}H{}"/><text x="{}" y="{}" dy=".35em">{}</text>')
            .format(kind, _LEFT, y, _RIGHT, _LEFT - 6, y, number(mark, digits))
        )  # fmt: skip
    for frame in _labelled(plane.frames):
        parts.append(
            Markup('<text class="x" x="{:.1f}" y="{}">{}</text>').format(
                plane.x(frame), _BOTTOM + 16, frame + 1
            )
        )
    parts.append(
        Markup('<text class="x" x="{}" y="{}">frame</text>').format(
            (_LEFT + _RIGHT) // 2, _HEIGHT - 6
        )
    )
    return Markup("").join(parts)


def _labelled(frames: int) -> list[int]:
    """At most seven frames, the first and the last among them."""
    step = max(1, math.ceil((frames - 1) / 6))
    chosen = list(range(0, frames - 1, step))
    if chosen and frames - 1 - chosen[-1] < step * 0.6 and len(chosen) > 1:
        chosen.pop()
    return [*chosen, frames - 1]


def _links(plane: _Plane, curve: Curve) -> Markup:
    """A line before every frame that begins a further link of a chained clip."""
    if curve.chain_length < 1:
        return Markup("")
    starts = range(curve.chain_length, len(curve.points), curve.chain_length)
    return Markup("").join(
        Markup('<path class="link" d="M{:.1f} {}V{}"/>').format(plane.x(s - 0.5), _TOP, _BOTTOM)
        for s in starts
    )


def _bounds(plane: _Plane, threshold: float) -> Markup:
    if math.isnan(threshold) or not plane.low <= threshold <= plane.high:
        return Markup("")
    return Markup('<path class="threshold" d="M{} {:.1f}H{}"/>').format(
        _LEFT, plane.y(threshold), _RIGHT
    )


def _runs(points: Sequence[Estimate], *, banded: bool) -> list[list[int]]:
    """Stretches of frames whose value, or interval, is known."""
    found: list[list[int]] = [[]]
    for index, point in enumerate(points):
        values = (point.low, point.high) if banded else (point.mean,)
        if all(map(math.isfinite, values)):
            found[-1].append(index)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def _band(plane: _Plane, kind: str, points: Sequence[Estimate]) -> Markup:
    parts = []
    for run in _runs(points, banded=True):
        edge = [(plane.x(i), plane.y(points[i].high)) for i in run]
        edge += [(plane.x(i), plane.y(points[i].low)) for i in reversed(run)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in edge)
        parts.append(Markup('<path class="band {}" d="M{}Z"/>').format(kind, path))
    return Markup("").join(parts)


def _line(plane: _Plane, kind: str, points: Sequence[Estimate]) -> Markup:
    parts = []
    for run in _runs(points, banded=False):
        path = "L".join(f"{plane.x(i):.1f} {plane.y(points[i].mean):.1f}" for i in run)
        if len(run) == 1:
            path += "h.1"  # a lone frame is a dot: the cap of a line without length
        parts.append(Markup('<path class="line {}" d="M{}"/>').format(kind, path))
    return Markup("").join(parts)
