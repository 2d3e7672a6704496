"""The benchmark's table: every figure beside its goal."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch

from anti_i2v_lit import __version__
from anti_i2v_lit.bench.bookkeeping import FULL_STEPS, SIDE_PX, Bookkeeping, Scan
from anti_i2v_lit.bench.count import Count
from anti_i2v_lit.bench.memory import Memory
from anti_i2v_lit.bench.model_speed import ModelSpeed
from anti_i2v_lit.bench.speed import Pace, Speed
from anti_i2v_lit.bench.subjects import device_of
from anti_i2v_lit.settings import Settings

MIN_UTILISATION = 0.5
MIN_SPEED, MAX_MEMORY, MAX_SHARE, MAX_SCAN_SECONDS = 3.0, 1.2, 0.05, 10.0
_MIB = 2**20


def heading(settings: Settings, num_photos: int) -> str:
    """What was measured, where."""
    device = device_of(settings)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    return (
        f"{name}, {torch.get_num_threads()} threads; anti-i2v-lit {__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}\n"
        f"{num_photos} photos, {settings.attack.steps} steps, batches of "
        f"{settings.attack.batch_size}; surrogates "
        + ", ".join(f"{node['name']}:{node.get('path', '')}" for node in settings.surrogates)
        + f"; space {settings.space['name']}; objectives "
        + ", ".join(f"{node['name']} x {node['weight']:g}" for node in settings.objectives)
    )


def speed_rows(speed: Speed) -> list[str]:
    """Photos per hour and losses."""
    product, plain = speed.product, speed.plain
    return [
        _row(
            "photos per hour, product over plain loop",
            f"{speed.ratio:.2f} (by processor time {speed.cpu_ratio:.2f})",
            f"at least {MIN_SPEED:g}",
            speed.ratio >= MIN_SPEED,
        ),
        _row(
            "photos per hour, product / plain", f"{_hourly(product)} / {_hourly(plain)}", "", None
        ),
        _row(
            "loss at the verification draws after as many steps, product / plain",
            f"{product.loss_last:.4f} / {plain.loss_last:.4f} (clean {product.loss:.4f})",
            "not higher",
            product.loss_last <= plain.loss_last,
        ),
    ]


def memory_rows(memory: Memory) -> list[str]:
    """Peak memory."""
    shown = f"{memory.product / _MIB:.0f} / {memory.plain / _MIB:.0f} MiB"
    return [
        _row(
            "peak memory per photo in flight, product over plain loop",
            f"{memory.ratio:.2f} ({shown})",
            f"at most {MAX_MEMORY:g}",
            memory.ratio <= MAX_MEMORY,
        )
    ]


def model_rows(speed: ModelSpeed) -> list[str]:
    """Figures of one model with one photo in flight."""
    return [
        _row(
            "photos per hour, product over plain loop",
            f"{speed.ratio:.2f}",
            f"at least {MIN_SPEED:g}",
            speed.ratio >= MIN_SPEED,
        ),
        _row(
            f"photos per hour ({speed.steps} steps, {speed.num_draws} draws), product / plain",
            f"{3600 / speed.photo_seconds:.3g} / "
            f"{3600 / (speed.steps * speed.plain_step_seconds):.3g}",
            "",
            None,
        ),
        _row(
            "seconds per step / per draw / per step of the plain loop",
            f"{speed.step_seconds:.3g} / {speed.draw_seconds:.3g} / {speed.plain_step_seconds:.3g}",
            "",
            None,
        ),
        _row(
            "utilisation: a step's operations over the measured matrix rate",
            f"{100 * speed.utilisation:.0f} % ({speed.flops / 1e12:.3g} TFLOP at "
            f"{speed.matmul_flops / 1e12:.3g} TFLOP/s; with recomputation "
            f"{100 * speed.busy:.0f} %)",
            f"at least {100 * MIN_UTILISATION:g} %",
            speed.utilisation >= MIN_UTILISATION,
        ),
        _row(
            "memory: weights + largest use beside them",
            f"{speed.weight_bytes / 1e9:.2f} + {speed.peak_bytes / 1e9:.2f} GB",
            "",
            None,
        ),
    ]


def count_rows(name: str, count: Count) -> list[str]:
    """Counted memory of one model by part, GB of 10^9 bytes; nothing was run."""
    parts = {
        **{f"weights, {network}": size for network, size in count.weights.items()},
        "draws of the photo (latents, noise, reference features)": count.pool,
        **{f"at its largest: {phase}": size for phase, size in count.phases.items()},
        "workspace (allowance)": count.workspace,
    }
    rows = [f"| {what} | {size / 1e9:.2f} |" for what, size in parts.items() if size >= 5e6]
    operations = ", ".join(f"{p} {n / 1e12:.3g}" for p, n in count.flops.items() if n)
    return [
        f"| {name}: counted, GB | |",
        "| --- | --- |",
        *rows,
        f"| **peak** | **{count.peak / 1e9:.2f}** |",
        f"| TFLOP: {operations}; recomputed {count.recomputed_flops / 1e12:.3g} | |",
    ]


def bookkeeping_rows(found: Bookkeeping) -> list[str]:
    """Share of everything but optimisation."""
    return [
        _row(
            f"reading, faces, writing, judging, ledger in a {FULL_STEPS}-step run "
            f"({SIDE_PX} px JPEG)",
            f"{100 * found.share:.1f} % ({found.other_seconds:.2f} s beside "
            f"{FULL_STEPS} x {found.step_seconds:.3f} s)",
            f"under {100 * MAX_SHARE:g} %",
            found.share < MAX_SHARE,
        )
    ]


def scan_rows(found: Scan) -> list[str]:
    """Scan of a finished archive."""
    total = found.input_seconds + found.ledger_seconds
    return [
        _row(
            f"scan of a finished archive of {found.num_rows:,} photos",
            f"{total:.1f} s (photos {found.input_seconds:.1f}, ledger {found.ledger_seconds:.1f}; "
            f"processor time {found.cpu_seconds:.1f})",
            f"under {MAX_SCAN_SECONDS:g} s for 100,000",
            total < MAX_SCAN_SECONDS,
        )
    ]


def table(rows: Sequence[str]) -> str:
    """Markdown."""
    return "\n".join(["| what | found | goal | met |", "| --- | --- | --- | --- |", *rows])


def _row(what: str, found: str, goal: str, met: bool | None) -> str:
    shown = "" if met is None else "yes" if met else "no"
    return f"| {what} | {found} | {goal} | {shown} |"


def _hourly(pace: Pace) -> str:
    return f"{3600 / pace.seconds:.1f}"
