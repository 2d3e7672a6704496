"""A rank that is gone, or late: the others say so, whatever they were waiting in, and hear signals.

Real processes over gloo, which do nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from anti_i2v_lit.cloaking.peers import Ranks
from anti_i2v_lit.lit.strategy import PhotoParallelStrategy

FORK = multiprocessing.get_context("fork")  # what the ranks need is imported already
PATIENCE_SECONDS = 1000  # only a machine that hangs takes as long
DEAF_SECONDS = 300  # whoever listens hears within a tenth of a second

Work = Callable[[Ranks, PhotoParallelStrategy], object]
WORK: dict[str, Work] = {
    "together": lambda peers, _: peers.together(lambda: 1),
    "any": lambda peers, _: peers.any(False),
    "gather": lambda peers, _: peers.gather(torch.zeros(3)),
    "from_leader": lambda peers, _: peers.from_leader(None),
    "barrier": lambda _, strategy: strategy.barrier("here"),
    "broadcast": lambda _, strategy: strategy.broadcast(None),
}


def rank(
    number: int, folder: Path, pipe: Connection, body: Callable[[Ranks, Connection], None]
) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=number, world_size=2
    )
    world = dist.group.WORLD
    body(Ranks(ranks=range(2), rank=number, plain=world, tensors=world), pipe)
    os._exit(0)


def start(
    folder: Path, bodies: list[Callable[[Ranks, Connection], None]]
) -> list[tuple[BaseProcess, Connection]]:
    found: list[tuple[BaseProcess, Connection]] = []
    for number, body in enumerate(bodies):
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=rank, args=(number, folder, theirs, body), daemon=True)
        process.start()
        found.append((process, ours))
    return found


def end(ranks: list[tuple[BaseProcess, Connection]]) -> None:
    for process, _ in ranks:
        process.kill()
        process.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("name", WORK)
def test_whoever_waits_for_a_rank_that_is_gone_says_so(name: str, tmp_path: Path) -> None:
    def dies(peers: Ranks, pipe: Connection) -> None:
        peers.together(lambda: 0)  # both have met

    def waits(peers: Ranks, pipe: Connection) -> None:
        peers.together(lambda: 0)
        try:
            WORK[name](peers, PhotoParallelStrategy())
            pipe.send("nothing happened")
        except RuntimeError as error:
            pipe.send(type(error).__name__)
        pipe.recv()

    ranks = start(tmp_path, [dies, waits])
    try:
        _, pipe = ranks[1]
        assert pipe.poll(PATIENCE_SECONDS)
        assert pipe.recv() == "PeerLost"
    finally:
        end(ranks)


def test_what_a_rank_does_is_not_taken_for_a_loss(tmp_path: Path) -> None:
    def fails(peers: Ranks, pipe: Connection) -> None:
        def work() -> int:
            raise RuntimeError("gloo, of all words")

        try:
            peers.together(work)
        except (RuntimeError, ValueError) as error:
            pipe.send(f"{type(error).__name__}: {error}")
        pipe.recv()

    ranks = start(tmp_path, [fails, fails])
    try:
        for _, pipe in ranks:
            assert pipe.poll(PATIENCE_SECONDS)
        assert ranks[0][1].recv() == "RuntimeError: gloo, of all words"
    finally:
        end(ranks)


def test_a_rank_that_waits_for_a_late_one_hears_signals(tmp_path: Path) -> None:
    def waits(peers: Ranks, pipe: Connection) -> None:
        signal.signal(signal.SIGTERM, lambda *_: pipe.send("heard"))
        peers.together(lambda: 0)
        pipe.send("waits")
        PhotoParallelStrategy().barrier("here")
        pipe.send("went on")
        pipe.recv()

    def comes_late(peers: Ranks, pipe: Connection) -> None:
        peers.together(lambda: 0)
        pipe.recv()
        PhotoParallelStrategy().barrier("here")
        pipe.recv()

    ranks = start(tmp_path, [waits, comes_late])
    try:
        (process, pipe), (_, other) = ranks
        assert pipe.poll(PATIENCE_SECONDS) and pipe.recv() == "waits"
        for _ in range(20):  # the first ones may come before it waits
            assert process.pid is not None
            os.kill(process.pid, signal.SIGTERM)
            assert pipe.poll(DEAF_SECONDS), "deaf while it waits"
            assert pipe.recv() == "heard"
        other.send("come")
        assert pipe.poll(PATIENCE_SECONDS) and pipe.recv() == "went on"
    finally:
        end(ranks)
