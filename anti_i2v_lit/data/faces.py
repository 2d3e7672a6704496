"""Where the faces are: MTCNN's cascade, offline, on photos of any size.

Zhang et al. 2016 (see `mtcnn`), section II: an image pyramid through P-Net, then R-Net and O-Net
on the survivors, with non-maximum suppression between stages. Faces turned far from upright are
not found: turn photos by their orientation tag first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms, roi_align

from anti_i2v_lit.checks import check_at_least, check_between, check_photos
from anti_i2v_lit.data.mtcnn import OutputNet, ProposalNet, RefineNet, load_networks
from anti_i2v_lit.ops.resize import resize

# Between levels of the pyramid the area halves (reference implementation of the paper).
_PYRAMID_STEP = 0.709
# Overlaps above which the weaker box goes: within a level, between stages (same source).
_NMS_WITHIN_LEVEL = 0.5
_NMS_BETWEEN_STAGES = 0.7
# Candidates kept after P-Net, best first: bounds memory on textures full of false alarms.
_MAX_CANDIDATES = 1000
# Images and crops that a network sees together: bounds memory.
_AT_ONCE, _CROPS_AT_ONCE = 16, 1024


@dataclass(frozen=True, kw_only=True)
class Face:
    """One detected face.

    Attributes:
        box: left, top, right, bottom as shares of the photo's width and height, in [0, 1].
        score: the last network's probability that this is a face, in [0, 1].
        landmarks: five (x, y) in shares of width and height: the eye at the image's left, the
            other eye, nose tip, mouth corner at the image's left, the other corner. They may
            lie a little outside [0, 1] when the photo cuts the face.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[tuple[float, float], ...]

    @property
    def area(self) -> float:
        """Share of the photo that the box covers, in [0, 1]."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


@dataclass(kw_only=True)
class FaceConfig:
    """Settings of the face detector.

    Attributes:
        max_side_px: photos are downscaled to at most this longer side, in pixels, first.
        min_side_px: smaller images are upscaled to this shorter side, in pixels, first.
        min_face_px: smallest face looked for, in pixels after that scaling.
        candidate_score: probability in [0, 1] that a window needs after P-Net.
        refined_score: probability in [0, 1] that a crop needs after R-Net.
        min_score: probability in [0, 1] that a face needs after O-Net.
    """

    max_side_px: int = 640
    min_side_px: int = 256
    min_face_px: int = 20
    candidate_score: float = 0.6
    refined_score: float = 0.7
    min_score: float = 0.9

    def __post_init__(self) -> None:
        """Refuse values that no detection can use.

        Raises:
            ValueError: naming the field, the value and its bounds.
        """
        check_at_least(self.max_side_px, 48, "faces.max_side_px")
        check_between(self.min_side_px, 1, self.max_side_px, "faces.min_side_px")
        check_between(self.min_face_px, ProposalNet.cell_px, self.max_side_px, "faces.min_face_px")
        for field in ("candidate_score", "refined_score", "min_score"):
            check_between(getattr(self, field), 0.0, 1.0, f"faces.{field}")


class FaceDetector:
    """MTCNN with packaged weights; plain object, no gradients."""

    Config = FaceConfig

    def __init__(self, config: FaceConfig) -> None:
        """Load the weights from the installed package; no network access.

        Raises:
            ValueError: the weight package is missing.
        """
        self.config = config
        self._proposal, self._refine, self._output = load_networks()

    def to(self, device: torch.device | str) -> Self:
        """Move the networks; returns self."""
        for network in (self._proposal, self._refine, self._output):
            network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._proposal.conv4_1.weight.device

    def detect(self, photo: Tensor) -> list[Face]:
        """Return the faces of one photo, largest area first; an empty list if there are none.

        Args:
            photo: [3, H, W] in [0, 1], float32, on any device.

        Raises:
            ValueError: wrong shape, type or range.
        """
        return self.detect_all(photo[None])[0]

    @torch.no_grad()
    def detect_all(self, photos: Tensor) -> list[list[Face]]:
        """Return the faces of every photo, as `detect` does; the networks see many at once.

        Args:
            photos: [B, 3, H, W] in [0, 1], float32, on any device.

        Raises:
            ValueError: wrong shape, type or range.
        """
        check_photos(photos, "photo")
        with torch.autocast(self.device.type, enabled=False):
            return [faces for part in photos.split(_AT_ONCE) for faces in self._detect(part)]

    def _detect(self, photos: Tensor) -> list[list[Face]]:
        images = self._working_images(photos.to(self.device))
        found = self._final(images, self._refined(images, self._propose(images)))
        height, width = images.shape[-2:]
        return [_sorted(*candidates, width, height) for candidates in found]

    def _working_images(self, photos: Tensor) -> Tensor:
        """Scale to the configured range of sizes: [B, 3, h, w] in [0, 1]."""
        height, width = photos.shape[-2:]
        wanted = max(1.0, self.config.min_side_px / min(height, width))
        scale = min(wanted, self.config.max_side_px / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return resize(photos, size, "bilinear")

    def _propose(self, images: Tensor) -> list[Tensor]:
        """P-Net over the pyramid: candidate boxes [N, 4] per image, in its pixels."""
        scale = ProposalNet.cell_px / self.config.min_face_px
        levels: list[list[tuple[Tensor, Tensor]]] = []
        while min(images.shape[-2:]) * scale >= ProposalNet.cell_px:
            levels.append(self._proposed_at(images, scale))
            scale *= _PYRAMID_STEP
        candidates = []
        for number in range(len(images)):
            found = [level[number] for level in levels]
            boxes = torch.cat([_empty(images), *(boxes for boxes, _ in found)])
            scores = torch.cat([images.new_zeros(0), *(scores for _, scores in found)])
            kept = nms(boxes, scores, _NMS_BETWEEN_STAGES)[:_MAX_CANDIDATES]
            candidates.append(_squared(boxes[kept]))
        return candidates

    def _proposed_at(self, images: Tensor, scale: float) -> list[tuple[Tensor, Tensor]]:
        """Boxes [N, 4] and scores [N] per image, at one level of the pyramid."""
        height, width = images.shape[-2:]
        size = (round(height * scale), round(width * scale))
        score, shifts = self._proposal(_normalise(resize(images, size, "bilinear")))
        numbers, rows, columns = places = (score >= self.config.candidate_score).nonzero(
            as_tuple=True
        )
        corner = torch.stack([columns, rows], dim=1) * float(ProposalNet.stride_px)
        boxes = torch.cat([corner, corner + ProposalNet.cell_px], dim=1)
        # Rounded sizes make the two axes differ from `scale` by a fraction of a pixel.
        boxes = boxes * boxes.new_tensor([width / size[1], height / size[0]] * 2)
        moved = _shifted(boxes, shifts[places])
        counts = numbers.bincount(minlength=len(images)).tolist()
        found = []
        for starts, ends, strengths in zip(
            *(x.split(counts) for x in (boxes, moved, score[places])), strict=True
        ):
            kept = nms(starts, strengths, _NMS_WITHIN_LEVEL)
            found.append((ends[kept], strengths[kept]))
        return found

    def _refined(self, images: Tensor, boxes: list[Tensor]) -> list[Tensor]:
        """R-Net over the candidates: boxes [N, 4] per image, in its pixels."""
        refined = []
        for starts, (score, shifts) in zip(
            boxes, _judged(self._refine, images, boxes), strict=True
        ):
            strong = score >= self.config.refined_score
            moved, score = _shifted(starts, shifts)[strong], score[strong]
            refined.append(_squared(moved[nms(moved, score, _NMS_BETWEEN_STAGES)]))
        return refined

    def _final(self, images: Tensor, boxes: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """O-Net over the survivors: boxes [N, 4], scores [N], landmarks [N, 5, 2] per image."""
        found = []
        for starts, (score, shifts, landmarks) in zip(
            boxes, _judged(self._output, images, boxes), strict=True
        ):
            points = starts[:, None, :2] + landmarks * _sides(starts)[:, None]
            ends = _shifted(starts, shifts)
            strong = (score >= self.config.min_score).tolist()
            order = [i for i in score.argsort(descending=True).tolist() if strong[i]]
            kept = _apart(ends, order)
            found.append((ends[kept], score[kept], points[kept]))
        return found


def _sorted(
    boxes: Tensor, scores: Tensor, landmarks: Tensor, width: int, height: int
) -> list[Face]:
    """Faces of an image of that size in pixels, largest area first."""
    inside = clip_boxes_to_image(boxes, (height, width))
    rows = zip(inside.tolist(), scores.tolist(), landmarks.tolist(), strict=True)
    faces = [_face(*row, width, height) for row in rows]
    return sorted((f for f in faces if f.area > 0), key=lambda f: (-f.area, f.box))


def _face(
    box: list[float], score: float, landmarks: list[list[float]], width: int, height: int
) -> Face:
    left, top, right, bottom = box
    return Face(
        box=(left / width, top / height, right / width, bottom / height),
        score=score,
        landmarks=tuple((x / width, y / height) for x, y in landmarks),
    )


def _empty(image: Tensor) -> Tensor:
    return image.new_zeros(0, 4)


def _normalise(image: Tensor) -> Tensor:
    """[0, 1] to the networks' input range: (grey level - 127.5) / 128."""
    return (image * 255.0 - 127.5) / 128.0


def _judged(
    network: RefineNet | OutputNet, images: Tensor, boxes: list[Tensor]
) -> list[tuple[Tensor, ...]]:
    """What a network says about area-averaged crops, black outside the photo; per image."""
    crops = _normalise(roi_align(images, boxes, network.crop_px, aligned=True))
    parts = [network(part) for part in crops.split(_CROPS_AT_ONCE)]
    counts = [len(each) for each in boxes]
    joined = [torch.cat(answers).split(counts) for answers in zip(*parts, strict=True)]
    return list(zip(*joined, strict=True))


def _sides(boxes: Tensor) -> Tensor:
    """(width, height) of boxes: [N, 2]."""
    return boxes[:, 2:] - boxes[:, :2]


def _shifted(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Move the four edges by shares of the box's sides (bounding-box regression)."""
    return boxes + shifts * _sides(boxes).repeat(1, 2)


def _squared(boxes: Tensor) -> Tensor:
    """Grow the shorter side about the centre, as the next network takes squares."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = _sides(boxes).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _apart(boxes: Tensor, order: list[int]) -> list[int]:
    """Those of the boxes, in an order, that do not lie in an earlier one."""
    corners = boxes.tolist()
    kept: list[int] = []
    for i in order:
        others = (_share_of_smaller(corners[i], corners[k]) for k in kept)
        if all(share <= _NMS_BETWEEN_STAGES for share in others):
            kept.append(i)
    return kept


def _share_of_smaller(a: list[float], b: list[float]) -> float:
    """Intersection over the smaller area: 1 for a box inside another."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    smaller = min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return width * height / max(smaller, 1e-9)
