"""Names of protected files that other tools changed: which photo does a name speak of?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_BORDER = re.compile(r"[^0-9a-z]", re.IGNORECASE)


def by_name(photos: Mapping[str, str], files: Mapping[str, str]) -> dict[str, list[str]]:
    """Photo -> the files whose name holds the photo's stem between borders.

    A file speaks of the longest stem in its name: `mist_img_12_eps16` of `img_12` and not of
    `img_1`. A border is the end of the name or anything but a letter or digit.

    Args:
        photos: key of a photo -> its stem.
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
        for key in stems.get(_longest(list(stems), stem.lower()), []):
            found.setdefault(key, []).append(name)
    return found


def _longest(stems: Sequence[str], name: str) -> str:
    inside = [stem for stem in stems if _holds(name, stem)]
    return max(inside, key=len, default="")


def _holds(name: str, stem: str) -> bool:
    start = name.find(stem)
    while start >= 0 and stem:
        end = start + len(stem)
        before, after = name[start - 1 : start], name[end : end + 1]
        if all(not side or _BORDER.match(side) for side in (before, after)):
            return True
        start = name.find(stem, start + 1)
    return False
