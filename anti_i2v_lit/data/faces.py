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
from anti_i2v_lit.data.mtcnn import ProposalNet, load_networks
from anti_i2v_lit.ops.resize import resize

# Between levels of the pyramid the area halves (reference implementation of the paper).
_PYRAMID_STEP = 0.709
# Overlaps above which the weaker box goes: within a level, between stages (same source).
_NMS_WITHIN_LEVEL = 0.5
_NMS_BETWEEN_STAGES = 0.7
# Candidates kept after P-Net, best first: bounds memory on textures full of false alarms.
_MAX_CANDIDATES = 1000


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

    @torch.no_grad()
    def detect(self, photo: Tensor) -> list[Face]:
        """Return the faces of one photo, largest area first; an empty list if there are none.

        Args:
            photo: [3, H, W] in [0, 1], float32, on any device.

        Raises:
            ValueError: wrong shape, type or range.
        """
        check_photos(photo[None], "photo")
        with torch.autocast(self.device.type, enabled=False):
            image = self._working_image(photo.to(self.device))
            boxes = self._propose(image)
            boxes = self._refined(image, boxes)
            boxes, scores, landmarks = self._final(image, boxes)
        height, width = image.shape[-2:]
        boxes = clip_boxes_to_image(boxes, (height, width))
        faces = [
            _face(box, score, points, width, height)
            for box, score, points in zip(
                boxes.tolist(), scores.tolist(), landmarks.tolist(), strict=True
            )
        ]
        return sorted((f for f in faces if f.area > 0), key=lambda f: (-f.area, f.box))

    def _working_image(self, photo: Tensor) -> Tensor:
        """Scale to the configured range of sizes: [1, 3, h, w] in [0, 1]."""
        height, width = photo.shape[-2:]
        wanted = max(1.0, self.config.min_side_px / min(height, width))
        scale = min(wanted, self.config.max_side_px / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return resize(photo[None], size, "bilinear")

    def _propose(self, image: Tensor) -> Tensor:
        """P-Net over the pyramid: candidate boxes [N, 4] in pixels of `image`."""
        found = [_empty(image)]
        scores = [image.new_zeros(0)]
        height, width = image.shape[-2:]
        scale = ProposalNet.cell_px / self.config.min_face_px
        while min(height, width) * scale >= ProposalNet.cell_px:
            size = (round(height * scale), round(width * scale))
            score, shifts = self._proposal(_normalise(resize(image, size, "bilinear")))
            rows, columns = (score >= self.config.candidate_score).nonzero(as_tuple=True)
            corner = torch.stack([columns, rows], dim=1) * float(ProposalNet.stride_px)
            boxes = torch.cat([corner, corner + ProposalNet.cell_px], dim=1)
            # Rounded sizes make the two axes differ from `scale` by a fraction of a pixel.
            boxes = boxes * boxes.new_tensor([width / size[1], height / size[0]] * 2)
            kept = nms(boxes, score[rows, columns], _NMS_WITHIN_LEVEL)
            found.append(_shifted(boxes, shifts[rows, columns])[kept])
            scores.append(score[rows, columns][kept])
            scale *= _PYRAMID_STEP
        boxes, score = torch.cat(found), torch.cat(scores)
        kept = nms(boxes, score, _NMS_BETWEEN_STAGES)[:_MAX_CANDIDATES]
        return _squared(boxes[kept])

    def _refined(self, image: Tensor, boxes: Tensor) -> Tensor:
        """R-Net over the candidates: boxes [N, 4] in pixels."""
        score, shifts = self._refine(_crops(image, boxes, self._refine.crop_px))
        strong = score >= self.config.refined_score
        boxes, score = _shifted(boxes, shifts)[strong], score[strong]
        return _squared(boxes[nms(boxes, score, _NMS_BETWEEN_STAGES)])

    def _final(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """O-Net over the survivors: boxes [N, 4], scores [N] and landmarks [N, 5, 2], pixels."""
        score, shifts, landmarks = self._output(_crops(image, boxes, self._output.crop_px))
        landmarks = boxes[:, None, :2] + landmarks * _sides(boxes)[:, None]
        boxes = _shifted(boxes, shifts)
        order = [
            i for i in score.argsort(descending=True).tolist() if score[i] >= self.config.min_score
        ]
        kept: list[int] = []
        for i in order:
            if all(_share_of_smaller(boxes[i], boxes[k]) <= _NMS_BETWEEN_STAGES for k in kept):
                kept.append(i)
        return boxes[kept], score[kept], landmarks[kept]


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


def _crops(image: Tensor, boxes: Tensor, side_px: int) -> Tensor:
    """Area-averaged crops [N, 3, side, side], black outside the photo."""
    crops = roi_align(image, [boxes], side_px, aligned=True)
    return _normalise(crops)


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


def _share_of_smaller(a: Tensor, b: Tensor) -> float:
    """Intersection over the smaller area: 1 for a box inside another."""
    overlap = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0.0).prod()
    smaller = torch.minimum((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())
    return float(overlap / smaller.clamp_min(1e-9))
