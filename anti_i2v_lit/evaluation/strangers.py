"""Other people: whose photos a clean clip is compared with, and how alike it is to them.

What is kept is the face vector of a photo and the mean one of a clip, never what they were compared
with. So the comparison follows from the photos of the present plan, whatever was evaluated before.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anti_i2v_lit.evaluation.settings import IdentitySettings

NO_FACE_IN_PHOTO = "no face in the photo"  # in place of a vector: nobody looked at the clip
_FLOAT = np.dtype("<f4")

Vector = NDArray[np.float32]


def packed(vector: Tensor) -> str:
    """A vector [D] of any numbers as text: base64 of its 32-bit floats, little-endian."""
    values = vector.detach().to("cpu", torch.float32).numpy().astype(_FLOAT)
    return base64.b64encode(values.tobytes()).decode()


def unpacked(text: str) -> Vector:
    """The vector [D] of `packed`; of no length for an empty text.

    Raises:
        ValueError: something else.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=_FLOAT)


class Strangers:
    """The photos of an evaluation as pictures of people.

    Args:
        people: key of every photo -> {face network: packed vector}; empty where no face was found.
        settings: how many photos a clip is compared with, and the networks' fixed thresholds.
    """

    def __init__(self, people: Mapping[str, Mapping[str, str]], settings: IdentitySettings) -> None:
        self._keys, self._settings = tuple(people), settings
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._people = {
            key: {network: unpacked(text) for network, text in vectors.items()}
            for key, vectors in people.items()
            if vectors
        }

    def similarities(self, key: str, faces: Mapping[str, str]) -> dict[str, tuple[float, ...]]:
        """Face network -> similarity of a clip to every other photo that it is compared with.

        Those are photos with a face, evenly spaced by name, at most as many as set. A photo that
        may show the same person is no stranger: where its cosine to the clip's own photo reaches
        a network's fixed threshold, it is NaN. Strangers that look alike are dropped with it,
        which makes the calibrated threshold lower, never higher. All are NaN where no face was
        found in the own photo.

        Args:
            key: of the clip's photo.
            faces: network -> mean over the frames of the clip's face vectors, frames without a
                face counted 0, packed; "" where no frame has one; `NO_FACE_IN_PHOTO`.
        """
        others = [self._people[other] for other in self._chosen(key) if other in self._people]
        known = [not self._may_be_same(key, other) for other in others]
        found = {}
        for network, text in faces.items():
            if text == NO_FACE_IN_PHOTO:
                continue
            mean = unpacked(text)
            found[network] = tuple(
                (float(mean @ other[network]) if len(mean) else 0.0) if is_known else math.nan
                for other, is_known in zip(others, known, strict=True)
            )
        return found

    def _chosen(self, key: str) -> Iterator[str]:
        total, own = len(self._keys) - 1, self._places[key]
        count = min(total, self._settings.others)
        for number in range(count):
            place = number * total // count
            yield self._keys[place if place < own else place + 1]

    def _may_be_same(self, key: str, other: Mapping[str, Vector]) -> bool:
        """Whether two faces may be one person's, for any network with a fixed threshold."""
        own, cuts = self._people.get(key), self._settings.fallback
        return own is None or any(float(own[n] @ other[n]) >= cuts[n] for n in own if n in cuts)
