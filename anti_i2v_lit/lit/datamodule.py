"""Photos to do, grouped the same way on every run, decoded one group ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from anti_i2v_lit.archive.changes import mtime_ns
from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.peers import Alone, Peers
from anti_i2v_lit.data.faces import Face, FaceDetector
from anti_i2v_lit.data.folder import Scan, SourceFile, scan
from anti_i2v_lit.data.photo import DecodedPhoto
from anti_i2v_lit.data.reading import read_photo, source_digest
from anti_i2v_lit.data.writing import output_names
from anti_i2v_lit.lit.dealing import deal, plan_all, plan_groups
from anti_i2v_lit.lit.finished import finished_and_changed, is_stream
from anti_i2v_lit.lit.placement import Placement, placement_of
from anti_i2v_lit.settings import Settings
from anti_i2v_lit.slurm.signals import REQUEST

__all__ = ["GroupStream", "LoadedPhoto", "PhotoDataModule", "WorkGroup", "plan_groups"]


@dataclass(frozen=True, kw_only=True)
class LoadedPhoto:
    """A photo read and searched for faces, ready to be cloaked.

    Attributes:
        source: where it was read.
        mtime_ns: when that was last changed before, ns since 1970; None for pipes and URLs.
        decoded: the photo.
        faces: what was found in it.
    """

    source: SourceFile
    mtime_ns: int | None
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


class GroupStream(IterableDataset[WorkGroup]):
    """Yields each group until it is done, reading the next one meanwhile.

    Args:
        settings: limits for reading and the face detector.
        sources: key -> file; none where another rank reads for this one.
        groups: this rank's groups, in order.
        finished: keys that need no work.
        settled: key -> SHA-256 of the original for which its row holds; a photo with these bytes
            needs no work either.
    """

    def __init__(
        self,
        settings: Settings,
        sources: dict[str, SourceFile],
        groups: Sequence[tuple[str, ...]],
        finished: set[str],
        settled: Mapping[str, str],
    ) -> None:
        self.settings, self.sources = settings, sources
        self.groups, self.finished = tuple(groups), finished
        self.settled = settled
        self.stop_requested = False
        # key -> reason; filled by the writer, which knows the names of the cloaks.
        self.blocked: Mapping[str, str] = {}
        self._place, self._current = 0, WorkGroup(keys=())
        self.peers: Peers = Alone()
        self._detector: FaceDetector | None = None

    def __iter__(self) -> Iterator[WorkGroup]:
        """Yield groups, again and again, until each is done or a stop is requested."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self.load, self.groups[0]) if self.groups else None
            for position in range(len(self.groups)):
                assert ahead is not None
                group = ahead.result()
                self._place, self._current = position, group
                if position + 1 < len(self.groups):
                    ahead = reader.submit(self.load, self.groups[position + 1])
                while not group.done:
                    if self._stopping():
                        return
                    yield group

    @property
    def left(self) -> int:
        """Groups that are not done."""
        return len(self.groups) - self._place - (1 if self._current.done else 0)

    def todo(self) -> list[SourceFile]:
        """The photos that this rank reads and that need work."""
        keys = (key for group in self.groups for key in group)
        return [self.sources[k] for k in keys if k in self.sources and k not in self.finished]

    def _stopping(self) -> bool:
        """Whether any of the ranks that share these photos was asked to stop."""
        asked = self.stop_requested or REQUEST.received is not None
        self.stop_requested = self.peers.any(asked)
        return self.stop_requested

    def captions(self) -> Iterator[str]:
        """Captions of the photos to do, in their order, without reading the photos.

        Those of pipes and URLs are left out: reading them beforehand means reading everything.
        """
        for key in (key for group in self.groups for key in group):
            source = self.sources.get(key)
            if source is None or key in self.finished or is_stream(source):
                continue
            try:
                yield "" if source.sample is None else source.sample.caption()
            except PhotoFailure:
                continue  # reading the photo will say so

    def load(self, keys: tuple[str, ...]) -> WorkGroup:
        """Read the unfinished photos of a group; unreadable ones become failures."""
        group = WorkGroup(keys=keys)
        for key in keys:
            if key in self.finished or key not in self.sources:
                continue
            source = self.sources[key]
            if key in self.blocked:
                group.failures[key] = (str(source.path), self.blocked[key])
                continue
            # Before it is read: what replaces it from now on has another time.
            changed = None if is_stream(source) else mtime_ns(source.path)
            try:
                if not is_stream(source) and self._is_settled(source):
                    continue
                decoded = read_photo(source, self.settings.reading)
                if decoded.source_sha256 == self.settled.get(key):  # a pipe, readable once
                    continue
                faces = tuple(self._faces(decoded))
            except PhotoFailure as failure:
                group.failures[key] = (str(source.path), str(failure))
                continue
            except Exception as error:  # noqa: BLE001 (one odd file must not stop ten thousand)
                reason = f"unexpected {type(error).__name__} while reading: {error}"
                group.failures[key] = (str(source.path), reason)
                continue
            group.loaded[key] = LoadedPhoto(
                source=source, mtime_ns=changed, decoded=decoded, faces=faces
            )
        return group

    def _is_settled(self, source: SourceFile) -> bool:
        """Whether a row holds for these bytes; a moved archive is not decoded to find out."""
        known = self.settled.get(source.key)
        return known is not None and known == source_digest(source, self.settings.reading)

    @torch.no_grad()
    def _faces(self, decoded: DecodedPhoto) -> list[Face]:
        if self._detector is None:
            self._detector = FaceDetector(self.settings.faces)
        return self._detector.detect(decoded.srgb())


class PhotoDataModule(pl.LightningDataModule):
    """Feeds the photos that have no row yet, each rank its own share.

    Args:
        settings: settings of the run.
        photos: files, folders, globs and shards.
        out: folder of the cloaks.

    Raises:
        ValueError: nothing found, `out` inside an input folder, or two photos whose cloaks would
            have one name.
    """

    def __init__(self, settings: Settings, *, photos: Sequence[str], out: Path | str) -> None:
        super().__init__()
        self.settings, self.out = settings, Path(out)
        self.requested: Scan = scan([str(p) for p in photos], self.out)
        output_names([source.key for source in self.requested.sources], settings.output)
        self.scanned: Scan = self.requested  # what this run does of it
        self.stream: GroupStream | None = None

    @property
    def num_photos(self) -> int:
        """Photos found, on all ranks together."""
        return len(self.scanned.sources)

    def setup(self, stage: str) -> None:
        """Look at the ledger and deal the unfinished groups out to the ranks.

        Raises:
            ValueError: another photo was already cloaked under the name of one of these.
        """
        del stage
        sources = {source.key: source for source in self.scanned.sources}
        placement = Placement()
        if self.trainer is not None:
            placement = placement_of(self.trainer, self.settings)
        work = self._look(sources) if placement.rank == 0 else None
        if self.trainer is not None:
            # A rank that starts late must not see rows that another rank already wrote.
            work = self.trainer.strategy.broadcast(work)
        assert work is not None
        groups, finished, settled = work
        homes = {k: s.sample.shard.name for k, s in sources.items() if s.sample is not None}
        mine = deal(groups, homes, placement.num_groups)[placement.group]
        # Of the ranks that share photos one reads; the others hear from it.
        read = sources if placement.leads else {}
        self.stream = GroupStream(self.settings, read, mine, finished, settled)

    def _look(
        self, sources: Mapping[str, SourceFile]
    ) -> tuple[list[tuple[str, ...]], set[str], dict[str, str]]:
        """Groups to do, keys that need no work, and what `GroupStream` calls settled."""
        ledger, store = Ledger(self.out), InFlightStore(self.out)
        rows = ledger.rows()
        finished, changed = finished_and_changed(ledger, sources)
        refused = {key for key, row in rows.items() if row.status == "refused"}
        settled = {key: rows[key].source_sha256 for key in changed | refused}
        in_flight = store.groups()
        for group in in_flight:
            if finished.issuperset(group):  # a kill between the last row and the clean-up
                store.discard(group)
        batch_size = self.settings.attack.batch_size
        recorded = set(rows) - changed
        groups = plan_all(self.scanned, finished, in_flight, batch_size, recorded)
        return groups, finished, settled

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
