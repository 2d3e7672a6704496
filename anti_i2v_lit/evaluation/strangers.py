"""Other people: whose photos a clean clip is compared with, and how alike it is to them.

What is kept is the face vector of a photo and the mean one of a clip, never what they were compared
with. So the comparison follows from the photos of the present plan, whatever was evaluated before.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Iterator, Mapping

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


def with_digest(network: str, digest: str) -> str:
    """A face network's name with the digest of its weights: vectors of others are not compared."""
    return f"{network}@{digest}"


def _name_of(network: str) -> str:
    return network.partition("@")[0]


class Strangers:
    """The photos of an evaluation as pictures of people.

    Args:
        people: key of every photo -> {face network with its digest: packed vector}; "" in place
            of a vector, or no network at all, where no face was found.
        settings: how many photos a clip is compared with, and the networks' fixed thresholds.
    """

    def __init__(self, people: Mapping[str, Mapping[str, str]], settings: IdentitySettings) -> None:
        self._keys, self._settings = tuple(people), settings
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._people = {
            key: {network: unpacked(text) for network, text in vectors.items() if text}
            for key, vectors in people.items()
            if any(vectors.values())
        }

    def similarities(self, key: str, faces: Mapping[str, str]) -> dict[str, tuple[float, ...]]:
        """Face network -> similarity of a clip to every other photo that it is compared with.

        Those are photos with a face, evenly spaced by name, at most as many as set. A photo that
        may show the same person is no stranger: where its cosine to the clip's own photo reaches
        a network's fixed threshold, it is NaN. Strangers that look alike are dropped with it,
        which makes the calibrated threshold lower, never higher. So is a photo that no network with
        a fixed threshold has seen as well as the own one, and all are NaN where no face was found
        in the own photo. Networks that did not look at the clip count nowhere.

        Args:
            key: of the clip's photo.
            faces: network with its digest -> mean over the frames of the clip's face vectors,
                frames without a face counted 0, packed; "" where no frame has one;
                `NO_FACE_IN_PHOTO`.
        """
        others = [self._people[other] for other in self._chosen(key) if other in self._people]
        own = self._people.get(key, {})
        known = [not self._may_be_same(own, other, faces) for other in others]
        found = {}
        for network, text in faces.items():
            if text == NO_FACE_IN_PHOTO:
                continue
            mean = unpacked(text)
            found[_name_of(network)] = tuple(
                _similarity(mean, other.get(network)) if is_known else math.nan
                for other, is_known in zip(others, known, strict=True)
            )
        return found

    def _chosen(self, key: str) -> Iterator[str]:
        total, own = len(self._keys) - 1, self._places[key]
        count = min(total, self._settings.others)
        for number in range(count):
            place = number * total // count
            yield self._keys[place if place < own else place + 1]

    def _may_be_same(
        self, own: Mapping[str, Vector], other: Mapping[str, Vector], networks: Collection[str]
    ) -> bool:
        """Whether two faces may be one person's, for any network that tells or for lack of one."""
        cuts = self._settings.fallback
        shared = [n for n in networks if n in own and n in other and _name_of(n) in cuts]
        return not shared or any(float(own[n] @ other[n]) >= cuts[_name_of(n)] for n in shared)


def _similarity(mean: Vector, other: Vector | None) -> float:
    """Of a clip to another photo; NaN where the network did not see that one."""
    if other is None:
        return math.nan
    return float(mean @ other) if len(mean) else 0.0
