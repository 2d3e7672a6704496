"""Names of protected files that other tools changed: which photo does a name speak of?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

Span = tuple[int, int]
_BORDER = re.compile(r"[^0-9a-z]", re.IGNORECASE)


def by_name(photos: Mapping[str, str], files: Mapping[str, str]) -> dict[str, list[str]]:
    """Photo -> the files whose name holds the photo's stem between borders.

    A stem inside a longer one does not count: `mist_img_12_eps16` speaks of `img_12` and not of
    `img`. A file whose name holds several stems beside each other speaks of none, as
    `mist_3_eps_16` where photos are called `3` and `16`. A border is the end of the name or
    anything but a letter or digit.

    Args:
        photos: key of a photo -> its stem; of all photos, so that none is overlooked.
        files: name of a file -> its stem.

    Returns:
        Only photos that some file speaks of. A photo or file that occurs more than once is not
        decided by its name.
    """
    stems: dict[str, list[str]] = {}
    for key, stem in photos.items():
        stems.setdefault(stem.lower(), []).append(key)
    found: dict[str, list[str]] = {}
    for name, stem in files.items():
        spoken = _spoken(stems, stem.lower())
        for key in stems[spoken[0]] if len(spoken) == 1 else []:
            found.setdefault(key, []).append(name)
    return found


def _spoken(stems: Iterable[str], name: str) -> list[str]:
    """The stems in a name, without those that only occur inside longer ones."""
    places = {stem: list(_places(name, stem)) for stem in stems if stem in name}
    spans = [span for some in places.values() for span in some]
    return [
        stem for stem, some in places.items() if any(not _is_inside(span, spans) for span in some)
    ]


def _is_inside(span: Span, others: Iterable[Span]) -> bool:
    return any(o != span and o[0] <= span[0] and span[1] <= o[1] for o in others)


def _places(name: str, stem: str) -> Iterator[Span]:
    """Where a stem stands between borders: first place, and the one behind the last."""
    start = name.find(stem)
    while start >= 0 and stem:
        end = start + len(stem)
        before, after = name[max(0, start - 1) : start], name[end : end + 1]
        if all(not side or _BORDER.match(side) for side in (before, after)):
            yield start, end
        start = name.find(stem, start + 1)
