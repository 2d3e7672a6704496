"""Find the face of each training portrait, so that rendered motion sits where it should."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
from torch import Tensor

from anti_i2v_lit.surrogates.embedded.motion import Face

# dlib's box runs from above the brows to the chin; these shares place Face's terms in it.
_CENTRE = 0.354
_HEIGHT = 1.2


def find_faces(photos: Tensor) -> tuple[Face, ...]:
    """The largest frontal face of each photo; the usual place where none is found.

    The detector is dlib's. It serves training alone, so the package does not depend on it; without
    it every face is taken to be at the usual place of a portrait.

    Args:
        photos: ``[N, 3, S, S]`` uint8.
    """
    if importlib.util.find_spec("dlib") is None:
        print("dlib is not installed: motion is placed at the usual face position", flush=True)
        return (Face(),) * len(photos)
    detector = importlib.import_module("dlib").get_frontal_face_detector()
    faces = []
    for photo in photos:
        boxes = detector(np.ascontiguousarray(photo.permute(1, 2, 0).numpy()), 0)
        if not boxes:
            faces.append(Face())
            continue
        box, full = max(boxes, key=lambda found: found.area()), photo.shape[-1]
        faces.append(
            Face(
                x=(box.left() + box.right()) / 2 / full,
                y=(box.top() + _CENTRE * box.height()) / full,
                height=_HEIGHT * box.height() / full,
            )
        )
    return tuple(faces)
