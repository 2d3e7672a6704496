"""Dry run: read every file, time a few steps on one photo, write nothing."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.plan import Candidate, Costs, Plan, make_plan
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.build import build_loop, build_surrogates
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.optimiser import SignDescent
from anti_i2v_lit.data.folder import SourceFile, scan
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.data.reading import read_photo
from anti_i2v_lit.lit.finished import finished_and_changed
from anti_i2v_lit.lit.placement import placement_in
from anti_i2v_lit.lit.sharded import check_sharding, is_sharded
from anti_i2v_lit.settings import Settings


def plan(
    settings: Settings,
    *,
    photos: Sequence[str],
    out: Path,
    trial_steps: int,
    free_bytes: int | None,
) -> Plan:
    """Find out what a run would do.

    Args:
        settings: settings of the run.
        photos: files, folders and globs.
        out: folder of the cloaks; need not exist.
        trial_steps: steps timed on the first readable photo; 0 makes no estimate, and so do
            strategies that divide a surrogate over devices.
        free_bytes: free space at `out`.

    Raises:
        ValueError: nothing found, or `out` inside an input.
    """
    found = scan([str(p) for p in photos], out)
    digests: dict[str, str] = {}
    candidates = [_candidate(source, settings, digests) for source in found.sources]
    candidates += [Candidate(key=key, refusal=reason) for key, reason in found.broken]
    finished = _finished(out, found.sources, digests) if out.is_dir() else set()
    refused = {c.key for c in candidates if c.refusal}
    todo = [s for s in found.sources if s.key not in refused and s.key not in finished]
    seconds = 0.0
    if is_sharded(settings):
        check_sharding(_devices(settings), settings)
        trial_steps = 0  # a surrogate that needs dividing may not fit this process
    if todo and trial_steps > 0:
        seconds = _seconds_per_step(settings, todo[0], trial_steps) * settings.attack.steps
    # Linux counts the peak in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    costs = Costs(
        seconds_per_photo=seconds,
        devices=_devices(settings) // _ranks_per_photo(settings),
        batch_size=settings.attack.batch_size,
        fixed_bytes=peak * (1 if sys.platform == "darwin" else 1024),
    )
    return make_plan(candidates, finished, costs, free_bytes)


def _finished(out: Path, sources: Sequence[SourceFile], digests: Mapping[str, str]) -> set[str]:
    """Keys that need no work; an original that was only touched needs none either."""
    ledger = Ledger(out)
    finished, changed = finished_and_changed(ledger, {source.key: source for source in sources})
    rows = ledger.rows()
    return finished | {k for k in changed if digests.get(k) == rows[k].source_sha256}


def _candidate(source: SourceFile, settings: Settings, digests: dict[str, str]) -> Candidate:
    """What a run would make of a photo; notes the SHA-256 of one that can be read."""
    try:
        decoded = read_photo(source, settings.reading)
    except PhotoFailure as failure:
        return Candidate(key=source.key, refusal=str(failure))
    digests[source.key] = decoded.source_sha256
    height, width = decoded.size
    return Candidate(
        key=source.key,
        format=decoded.format,
        size_bytes=source.size_bytes,
        pixels=height * width,
    )


def _devices(settings: Settings) -> int:
    devices = settings.trainer.get("devices", 1)
    nodes = int(settings.trainer.get("num_nodes", 1))
    if isinstance(devices, list):
        return len(devices) * nodes
    if str(devices) in ("auto", "-1"):
        return (torch.cuda.device_count() if _on_gpu(settings) else 1) * nodes
    return int(devices) * nodes


def _ranks_per_photo(settings: Settings) -> int:
    """Devices that work on the same photos.

    Raises:
        ValueError: the devices cannot be divided into groups.
    """
    return placement_in(_devices(settings), settings).members


def _on_gpu(settings: Settings) -> bool:
    wanted = settings.trainer.get("accelerator", "auto")
    return wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _seconds_per_step(settings: Settings, source: SourceFile, steps: int) -> float:
    """Seconds of a step of the whole ensemble; of its slowest surrogate where each has a device."""
    everybody = list(range(len(settings.surrogates)))
    shifts = [everybody]
    if _ranks_per_photo(settings) > 1:
        shifts = [[position] for position in everybody]
    return max(_seconds_of(settings, source, steps, shift) for shift in shifts)


def _seconds_of(settings: Settings, source: SourceFile, steps: int, only: list[int]) -> float:
    """Seconds per step of these surrogates, one after the other on one device."""
    device = "cuda" if _on_gpu(settings) else "cpu"
    framing = Framing(settings.framing)
    surrogates = build_surrogates(
        settings.surrogates,
        device,
        settings.objectives,
        waiting=settings.ensemble.waiting,
        only=only,
    )
    loop = build_loop(
        seed=settings.seed,
        attack=settings.attack,
        space=settings.space,
        surrogates=surrogates,
        framing=framing,
        device=device,
        ensemble=settings.ensemble,
    )
    decoded = read_photo(source, settings.reading)
    canvas = framing.to_canvas(decoded.srgb(), loop.view_size)[None]
    job = PhotoJob(
        key=source.key,
        photo_size=decoded.size,
        canvas=canvas.to(device),
        faces=(),
        budget_8bit=settings.attack.budget_8bit,
        caption=decoded.caption,
    )
    loop.begin(job)
    optimiser = SignDescent(settings.attack.momentum)
    optimiser.add_photo(job.parameters.values())
    loop.step([job], optimiser)
    started = time.perf_counter()
    for _ in range(steps):
        loop.step([job], optimiser)
    return (time.perf_counter() - started) / steps
