"""Where a run keeps its state, inside the folder of the cloaks."""

from __future__ import annotations

import shutil
from pathlib import Path

from anti_i2v_lit.archive.files import STATE_FOLDER


def state_folder(out: Path) -> Path:
    """Everything that is not a cloak, the manifest or the report."""
    return out / STATE_FOLDER


def logs_folder(out: Path) -> Path:
    """Records of the runs: `<run>/rank-0000/` with a CSV file and TensorBoard's events."""
    return state_folder(out) / "logs"


def staging_folder(out: Path) -> Path:
    """Written files that are not judged yet; same file system as `out`, so that a rename works."""
    return state_folder(out) / "staging"


def sweep(staging: Path) -> None:
    """Remove what a killed run left unjudged; only for the holder of the folder's lock."""
    if staging.is_dir():
        shutil.rmtree(staging)
