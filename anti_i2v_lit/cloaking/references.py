"""Reference clips out of videos: what the noise of the training loss is added to."""

from __future__ import annotations

import glob
import io
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.shards.reading import (
    Entry,
    ForwardReader,
    Member,
    Shard,
    is_shard,
    open_shard,
)
from anti_i2v_lit.ops.resize import Box, crop_resize
from anti_i2v_lit.tars import DamagedTar

VIDEO_SUFFIXES = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm"})
_KEPT = 16  # clips kept decoded


@dataclass(frozen=True, kw_only=True)
class _Video:
    """A video: its name, and what opens it."""

    name: str
    opened: Callable[[], str | io.BytesIO]


class ReferenceClips:
    """The first frames of videos, whole, as a model takes them.

    Frames are cut to the view's shape about their centre and resized. All videos are decoded once
    beforehand, so that a broken one stops a run at its start.

    Args:
        pattern: file, folder or glob of videos, or of tar shards that hold videos.
        num_frames: frames per clip.
        view_size: (H, W) in pixels.

    Raises:
        ValueError: nothing there, or a video that cannot be decoded or is too short.
    """

    def __init__(self, pattern: str, num_frames: int, view_size: tuple[int, int]) -> None:
        self._videos = list(_videos(pattern))
        if not self._videos:
            raise ValueError(
                f"attack.references: no videos in {pattern!r}; looked for "
                f"{', '.join(sorted(VIDEO_SUFFIXES))} and for tar shards with such members"
            )
        self._num_frames, self._size = num_frames, view_size
        self._clips: OrderedDict[int, Tensor] = OrderedDict()
        for number in range(len(self._videos)):
            self.clip(number)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self._videos)

    def clip(self, number: int) -> Tensor:
        """Clip [1, num_frames, 3, H, W] in [0, 1] of the video of this number, in order of name."""
        if number not in self._clips:
            self._clips[number] = self._decoded(self._videos[number])
        self._clips.move_to_end(number)
        while len(self._clips) > _KEPT:
            self._clips.popitem(last=False)
        return self._clips[number].float()[None] / 255.0

    def _decoded(self, video: _Video) -> Tensor:
        """The frames at view size, uint8 [num_frames, 3, H, W]."""
        try:
            frames = list(islice(_frames(video.opened()), self._num_frames))
        except (av.FFmpegError, PhotoFailure, IndexError) as error:
            raise ValueError(
                f"attack.references: {video.name} cannot be decoded: {error}"
            ) from error
        if len(frames) < self._num_frames:
            raise ValueError(
                f"attack.references: {video.name} has {len(frames)} frames, "
                f"expected at least {self._num_frames}"
            )
        whole = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
        box = _centred(whole.shape[-2], whole.shape[-1], self._size)
        return crop_resize(whole, box, self._size).round().clamp(0, 255).to(torch.uint8)


def reference_files(pattern: str) -> list[Path]:
    """Videos and shards that a setting means, sorted; none where nothing is there.

    A path that is there is meant as it stands, whatever brackets it has.
    """
    path = os.path.expanduser(pattern)
    found: list[str] = []
    for place in [path] if os.path.exists(path) else glob.glob(path, recursive=True):
        nested = os.path.join(glob.escape(place), "**", "*.*")
        found += glob.glob(nested, recursive=True) if os.path.isdir(place) else [place]
    files = {Path(file) for file in found if not os.path.isdir(file)}
    return sorted(file for file in files if is_shard(str(file)) or _is_video(str(file)))


def _videos(pattern: str) -> Iterator[_Video]:
    for place in map(str, reference_files(pattern)):
        if is_shard(place):
            shard = open_shard(place, ForwardReader())
            for member in _members(shard, place):
                if member.is_file and _is_video(member.name):
                    name = f"{place}/{member.name}"
                    entry = Entry(name=member.name, offset=member.offset, size=member.size)
                    yield _Video(name=name, opened=partial(_member, shard, entry))
        else:
            yield _Video(name=place, opened=partial(str, place))


def _members(shard: Shard, place: str) -> Iterator[Member]:
    """The members of a tar.

    Raises:
        ValueError: it is damaged; says where and what to do.
    """
    try:
        yield from shard.members()
    except DamagedTar as error:
        raise ValueError(
            f"attack.references: {place} cannot be read as a tar: {error}; copy or make it again, "
            "or leave it out"
        ) from error


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _member(shard: Shard, entry: Entry) -> io.BytesIO:
    return io.BytesIO(shard.read([entry])[0])


def _frames(opened: str | io.BytesIO) -> Iterator[NDArray[np.uint8]]:
    """SRGB pixels [H, W, 3] of each frame, in the order of display."""
    with av.open(opened, "r") as container:
        stream = container.streams.video[0]
        # One thread: the same frames on every machine, damaged files included.
        stream.thread_count = 1
        for frame in container.decode(stream):
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _centred(height: int, width: int, size: tuple[int, int]) -> Box:
    """The largest box about the centre with the shape of a view."""
    shape = (size[1] / size[0]) / (width / height)
    across, down = min(1.0, shape), min(1.0, 1.0 / shape)
    return ((1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2)
