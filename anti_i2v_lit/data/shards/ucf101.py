"""UCF101 (Soomro et al. 2012): actions in avi clips, one folder per class.

Layout of the published archives: `UCF-101/<Class>/v_<Class>_g<group>_c<clip>.avi` and
`ucfTrainTestlist/` with `classInd.txt` ("1 ApplyEyeMakeup"), `trainlist01.txt` to `trainlist03.txt`
("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1") and `testlist01.txt` to `testlist03.txt` (the same
without labels).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.data.shards.frames import FrameConfig, FrameReader
from anti_i2v_lit.data.shards.sources import (
    Sample,
    SampleSource,
    Unit,
    files_below,
    key_of,
    sha256_of,
)

_SUBSETS = ("train", "test", "all")
_CLIP_NAME = re.compile(r"^v_(?P<label>.+)_g(?P<group>\d+)_c(?P<clip>\d+)$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(kw_only=True)
class Ucf101Config(FrameConfig):
    """Frames of UCF101 and which of the official lists to take."""

    subset: str = "train"
    """"train" or "test", by the official lists; "all" takes every clip and needs no list."""
    split: int = 1
    """Number of the official split, 1 to 3; of no effect with subset "all"."""
    require_face: bool = False
    """Whether a frame without a face is passed over; many clips show no face."""

    def __post_init__(self) -> None:
        """Refuse unknown lists.

        Raises:
            ValueError: naming the field and the known values.
        """
        super().__post_init__()
        check_in(self.subset, _SUBSETS, "subset")
        check_between(self.split, 1, 3, "split")


@final
class Ucf101(SampleSource):
    """UCF101: avi clips in class folders, by the official lists."""

    Config = Ucf101Config
    layout = "expected UCF101: UCF-101/<Class>/v_<Class>_g01_c01.avi and ucfTrainTestlist/"

    def __init__(self, config: Ucf101Config) -> None:
        super().__init__(config)
        self._frames = FrameReader(config)

    @property
    def samples_per_unit(self) -> int:
        """See `SampleSource.samples_per_unit`."""
        num_frames: int = self.config.num_frames
        return num_frames

    def _units(self, given: Path) -> list[Unit]:
        if not given.is_dir():
            raise ValueError(f"{given} is not a folder; {self.layout}")
        clips = {
            "/".join(name.split("/")[-2:]): name for name in files_below(given, frozenset({".avi"}))
        }
        chosen = self._listed(given, clips) if self.config.subset != "all" else sorted(clips)
        classes = _classes(given)
        units = []
        for name in chosen:
            label = name.split("/")[0]
            facts: dict[str, Any] = {"class": label, "subset": self.config.subset}
            if self.config.subset != "all":
                facts["split"] = self.config.split
            if label in classes:
                facts["class_index"] = classes[label]
            parts = _CLIP_NAME.match(Path(name).stem)
            if parts is not None:
                facts["group"] = int(parts["group"])
            units.append(Unit(name=name, path=given / clips[name], facts=facts))
        return units

    def _listed(self, given: Path, clips: dict[str, str]) -> list[str]:
        list_name = f"{self.config.subset}list{self.config.split:02d}.txt"
        path = next(iter(sorted(given.rglob(list_name))), None)
        if path is None:
            raise ValueError(
                f"{given} holds no {list_name}; unpack UCF101TrainTestSplits-RecognitionTask.zip "
                "there, or give subset=all"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
        names = [line.split()[0].replace("\\", "/") for line in lines if line.strip()]
        missing = [name for name in names if name not in clips]
        if missing:
            raise ValueError(
                f"{path} names {len(missing)} clips that are not there, first {missing[0]}; "
                "unpack the whole of UCF101.rar, or give a list of what is there"
            )
        return names

    def _samples(self, unit: Unit) -> Iterator[Sample]:
        source_sha256 = sha256_of(unit.path)
        for frame in self._frames.read(unit.path):
            facts = {
                "source_sha256": source_sha256,
                **unit.facts,
                "frame": frame.index,
                "seconds": frame.seconds,
                "face_box": frame.face_box,
            }
            yield Sample(
                key=f"{key_of(unit.name)}-f{frame.index:05d}",
                suffix=frame.suffix,
                photo=frame.photo,
                caption=class_words(str(unit.facts["class"])),
                facts=facts,
            )


def class_words(label: str) -> str:
    """A class name as words: "ApplyEyeMakeup" -> "apply eye makeup", "YoYo" -> "yo yo"."""
    return " ".join(word.lower() for word in _WORD.findall(label))


def _classes(given: Path) -> dict[str, int]:
    path = next(iter(sorted(given.rglob("classInd.txt"))), None)
    if path is None:
        return {}
    pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {pair[1]: int(pair[0]) for pair in pairs if len(pair) == 2}
