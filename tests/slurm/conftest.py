"""A two-node SLURM for the session, on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.local_cluster import LocalCluster, why_not


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: paths of sockets
    found = LocalCluster(folder)
    found.start()
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)
