"""Photos to do, grouped the same way on every run, decoded one group ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.data.faces import Face, FaceDetector
from anti_i2v_lit.data.folder import Scan, SourceFile, scan
from anti_i2v_lit.data.photo import DecodedPhoto
from anti_i2v_lit.data.reading import read_photo
from anti_i2v_lit.settings import Settings


@dataclass(frozen=True, kw_only=True)
class LoadedPhoto:
    """A photo read and searched for faces, ready to be cloaked."""

    source: SourceFile
    decoded: DecodedPhoto
    faces: tuple[Face, ...]


@dataclass(kw_only=True)
class WorkGroup:
    """Photos that are optimised together, from reading to the ledger.

    The loader yields the same object once per step until `done`, so that the number of steps
    (which the gate decides) need not be known beforehand.

    Attributes:
        keys: the composition the group always has, whatever is finished already.
        loaded: key -> photo, for those that could be read and have no row yet.
        failures: key -> (source path, reason) of those that could not be read.
        jobs: filled by the module when the group is first seen.
        broken: key -> reason of jobs whose loss became non-finite; they have no job any more.
        entered: whether the module has seen the group.
        done: whether every photo has its row.
    """

    keys: tuple[str, ...]
    loaded: dict[str, LoadedPhoto] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    jobs: list[PhotoJob] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    entered: bool = False
    done: bool = False


def plan_groups(
    keys: Sequence[str],
    finished: set[str],
    in_flight: Sequence[tuple[str, ...]],
    batch_size: int,
) -> list[tuple[str, ...]]:
    """Group keys so that a resumed run has the compositions of an undisturbed one.

    Groups in flight come first, as they were; the rest is cut from all keys, finished or not, so
    that finished photos do not shift the cuts. Groups without unfinished photos are left out.
    """
    known = set(keys)
    started = [g for g in in_flight if set(g) <= known and not set(g) <= finished]
    taken = {key for group in started for key in group}
    rest = [key for key in keys if key not in taken]
    cuts = [tuple(rest[i : i + batch_size]) for i in range(0, len(rest), batch_size)]
    return started + [group for group in cuts if not set(group) <= finished]


class GroupStream(IterableDataset[WorkGroup]):
    """Yields each group until it is done, reading the next one meanwhile.

    Args:
        settings: limits for reading and the face detector.
        sources: key -> file.
        groups: this rank's groups, in order.
        finished: keys that have a row.
    """

    def __init__(
        self,
        settings: Settings,
        sources: dict[str, SourceFile],
        groups: Sequence[tuple[str, ...]],
        finished: set[str],
    ) -> None:
        self.settings, self.sources = settings, sources
        self.groups, self.finished = tuple(groups), finished
        self.stop_requested = False
        self._detector: FaceDetector | None = None

    def __iter__(self) -> Iterator[WorkGroup]:
        """Yield groups, again and again, until each is done or a stop is requested."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self.load, self.groups[0]) if self.groups else None
            for position in range(len(self.groups)):
                assert ahead is not None
                group = ahead.result()
                if position + 1 < len(self.groups):
                    ahead = reader.submit(self.load, self.groups[position + 1])
                while not (group.done or self.stop_requested):
                    yield group
                if self.stop_requested:
                    return

    def load(self, keys: tuple[str, ...]) -> WorkGroup:
        """Read the unfinished photos of a group; unreadable ones become failures."""
        group = WorkGroup(keys=keys)
        for key in keys:
            if key in self.finished:
                continue
            source = self.sources[key]
            try:
                decoded = read_photo(source, self.settings.reading)
                faces = tuple(self._faces(decoded))
            except PhotoFailure as failure:
                group.failures[key] = (str(source.path), str(failure))
                continue
            group.loaded[key] = LoadedPhoto(source=source, decoded=decoded, faces=faces)
        return group

    @torch.no_grad()
    def _faces(self, decoded: DecodedPhoto) -> list[Face]:
        if self._detector is None:
            self._detector = FaceDetector(self.settings.faces)
        return self._detector.detect(decoded.srgb())


class PhotoDataModule(pl.LightningDataModule):
    """Feeds the photos that have no row yet, each rank its own share.

    Args:
        settings: settings of the run.
        photos: files, folders and globs.
        out: folder of the cloaks.

    Raises:
        ValueError: nothing found, or `out` inside an input folder.
    """

    def __init__(self, settings: Settings, *, photos: Sequence[str], out: Path | str) -> None:
        super().__init__()
        self.settings, self.out = settings, Path(out)
        self.scanned: Scan = scan([str(p) for p in photos], self.out)
        self.stream: GroupStream | None = None

    @property
    def num_photos(self) -> int:
        """Photos found, on all ranks together."""
        return len(self.scanned.sources)

    def setup(self, stage: str) -> None:
        """Look at the ledger and deal the unfinished groups out to the ranks."""
        del stage
        finished = Ledger(self.out).finished()
        sources = {source.key: source for source in self.scanned.sources}
        groups = plan_groups(
            sorted(sources),
            finished,
            InFlightStore(self.out).groups(),
            self.settings.attack.batch_size,
        )
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            # A rank that starts late must not see rows that another rank already wrote.
            groups, finished = self.trainer.strategy.broadcast((groups, finished))
        self.stream = GroupStream(self.settings, sources, groups[rank::world], finished)

    def train_dataloader(self) -> DataLoader[WorkGroup]:
        """One item per optimisation step."""
        assert self.stream is not None
        return DataLoader(self.stream, batch_size=None, num_workers=0)

    def transfer_batch_to_device(
        self, batch: WorkGroup, device: torch.device, dataloader_idx: int
    ) -> WorkGroup:
        """Leave a group as it is: photos stay on the CPU, the module places the canvases."""
        del device, dataloader_idx
        return batch
