"""CelebV-Text (Yu et al. 2023): face clips, each with text files on six attributes.

Layout after the published archives are unpacked (github.com/celebv-text/CelebV-Text): clips as
`<clip>.mp4`, in folders `celebvtext_<n>` or in the download script's `processed`; texts as
`<clip>.txt` with one sentence per line, in one folder per attribute (`face40_details_new`,
`action_dur`, `emotion`, `light_dir`, `light_intensity`, `light_color_temp`); and
`celebvtext_info.json` with `{"clips": {"<clip>": {"ytb_id", "duration", "bbox", "version"}}}`.
Where these lie below the input does not matter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.shards.frames import FrameConfig, FrameReader
from anti_i2v_lit.data.shards.sources import (
    Sample,
    SampleSource,
    Unit,
    files_below,
    key_of,
    sha256_of,
)

INFO_FILE = "celebvtext_info.json"
_RAW_FOLDER = "raw"


@dataclass(kw_only=True)
class CelebVTextConfig(FrameConfig):
    """Frames of CelebV-Text and the sentences that become their caption."""

    caption_attributes: list[str] = field(default_factory=lambda: ["face40_details", "action"])
    """Beginnings of names of attribute folders; the first sentence of each makes the caption."""


@final
class CelebVText(SampleSource):
    """CelebV-Text: mp4 clips with sentences on face, action, emotion and light."""

    Config = CelebVTextConfig
    layout = "expected CelebV-Text: <clip>.mp4, and folders of <clip>.txt for each attribute"

    def __init__(self, config: CelebVTextConfig) -> None:
        super().__init__(config)
        self._frames = FrameReader(config)

    @property
    def samples_per_unit(self) -> int:
        """See `SampleSource.samples_per_unit`."""
        num_frames: int = self.config.num_frames
        return num_frames

    def companions(self, unit: Unit) -> list[Path]:
        """See `SampleSource.companions`."""
        folders: dict[str, Path] = unit.facts["text_folders"]
        return [folder / f"{unit.facts['clip']}.txt" for folder in folders.values()]

    def _units(self, given: Path) -> list[Unit]:
        if not given.is_dir():
            raise ValueError(f"{given} is not a folder; {self.layout}")
        info = _info(given)
        folders = _text_folders(given)
        units = []
        for name in files_below(given, frozenset({".mp4"})):
            # The download script keeps whole videos of the internet beside the clips cut from them.
            if _RAW_FOLDER in name.split("/")[:-1]:
                continue
            clip = Path(name).stem
            facts = {"clip": clip, "text_folders": folders}
            if clip in info:
                facts["info"] = info[clip]
            units.append(Unit(name=name, path=given / name, facts=facts))
        return units

    def _samples(self, unit: Unit) -> Iterator[Sample]:
        clip, source_sha256 = str(unit.facts["clip"]), sha256_of(unit.path)
        texts = _texts(unit.facts["text_folders"], clip)
        caption = self._caption(texts)
        info = unit.facts.get("info")
        for frame in self._frames.read(unit.path):
            facts: dict[str, Any] = {
                "source_sha256": source_sha256,
                "clip": clip,
                "frame": frame.index,
                "seconds": frame.seconds,
                "face_box": frame.face_box,
                "texts": texts,
            }
            yield Sample(
                key=f"{key_of(unit.name)}-f{frame.index:05d}",
                suffix=frame.suffix,
                photo=frame.photo,
                caption=caption,
                facts=facts if info is None else {**facts, "info": info},
            )

    def _caption(self, texts: dict[str, list[str]]) -> str:
        chosen = []
        for attribute in self.config.caption_attributes:
            named = [name for name in sorted(texts) if name.startswith(attribute)]
            chosen += [texts[name][0] for name in named[:1] if texts[name]]
        return " ".join(chosen)


def _info(folder: Path) -> dict[str, Any]:
    """Clip -> what the published JSON says about it; empty where the file is not there."""
    found = [name for name in files_below(folder, frozenset({".json"})) if name.endswith(INFO_FILE)]
    clips: dict[str, Any] = {}
    for name in found:
        try:
            clips.update(json.loads((folder / name).read_text(encoding="utf-8"))["clips"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{folder / name} is not CelebV-Text\'s list of {{"clips": ...}}: {error!r}'
            ) from error
    return clips


def _text_folders(folder: Path) -> dict[str, Path]:
    """Attribute -> folder of its texts, by the name of the folder that holds the files."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if any(name.endswith(".txt") for name in names) and Path(parent) != folder:
            found.setdefault(Path(parent).name, Path(parent))
    return dict(sorted(found.items()))


def _texts(folders: dict[str, Path], clip: str) -> dict[str, list[str]]:
    """Attribute -> sentences about a clip."""
    found = {}
    for attribute, folder in folders.items():
        try:
            lines = (folder / f"{clip}.txt").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError as error:
            raise PhotoFailure(f"the text in {attribute} is not UTF-8: {error}") from error
        found[attribute] = [line.strip() for line in lines if line.strip()]
    return found
