"""Frozen image networks of local transformers folders: DINO, DINOv2 and CLIP."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop

from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.memory import LastResult, PhotoMemory
from anti_i2v_lit.metrics.requirements import WeightsFile

BATCH = 16  # frames per call
DINO_SIDE = 224  # pixels of the shorter side
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
DINO_WEIGHTS = WeightsFile(
    name="dino-vitb16",
    how_to_get=(
        "On a machine with a network run 'hf download facebook/dino-vitb16 --local-dir "
        "dino-vitb16' and put the folder into the folder of weights, or set weights=FOLDER "
        "(a DINOv2 folder such as facebook/dinov2-base will do as well, with other numbers)"
    ),
)
CLIP_WEIGHTS = WeightsFile(
    name="clip-vit-base-patch32",
    how_to_get=(
        "On a machine with a network run 'hf download openai/clip-vit-base-patch32 --local-dir "
        "clip-vit-base-patch32' and put the folder into the folder of weights, or set "
        "weights=FOLDER"
    ),
)


class ImageFeatures(ABC):
    """Unit vectors of images; metrics with one network share one object and its results.

    A variant provides `_network` and `_encode`.
    """

    def __init__(self) -> None:
        self._photos: PhotoMemory[Tensor] = PhotoMemory()
        self._frames: LastResult[Tensor] = LastResult()

    @property
    @abstractmethod
    def _network(self) -> nn.Module:
        """The network that holds the weights."""

    @abstractmethod
    def _encode(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> features [N, D]."""

    @final
    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> features [N, D] as the network gives them."""
        self._network.to(images.device)
        return torch.cat([self._encode(batch).float() for batch in images.split(BATCH)])

    @final
    def encode(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> unit vectors [N, D], on the images' device."""
        return F.normalize(self.tokens(images), dim=-1)

    @final
    def frames(self, subject: GeneratedClip) -> Tensor:
        """Unit vectors of the frames, [T, D]."""
        return self._frames.get(subject.frames, lambda: self.encode(subject.frames))

    @final
    def photo(self, subject: GeneratedClip) -> Tensor:
        """Unit vector of the clean photo, [D]."""
        photo = subject.photo.to(subject.frames.device)
        return self._photos.get(subject.photo_key, photo, lambda: self.encode(photo[None])[0])


class DinoFeatures(ImageFeatures):
    """Class token of DINO (Caron et al., ICCV 2021) or DINOv2 (Oquab et al., TMLR 2024).

    Images are resized to a shorter side of 224 pixels, bilinearly and antialiased, uncropped.

    Args:
        folder: transformers folder of a ViT or DINOv2 model.

    Raises:
        ValueError: another model, or tensors are missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoConfig, Dinov2Model, ViTModel

        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind not in ("vit", "dinov2"):
            raise ValueError(
                f"weights: expected a folder of DINO ('vit') or DINOv2 ('dinov2'), got {kind!r} "
                f"in {folder}"
            )
        if kind == "vit":
            self._model: Any = load_whole(ViTModel, folder, add_pooling_layer=False)
            self._options = {"interpolate_pos_encoding": True}
        else:
            self._model, self._options = load_whole(Dinov2Model, folder), {}

    @property
    def _network(self) -> nn.Module:
        return self._model

    def _encode(self, images: Tensor) -> Tensor:
        pixels = normalised(
            shorter_side(images, DINO_SIDE, "bilinear"), IMAGENET_MEAN, IMAGENET_STD
        )
        return self._model(pixel_values=pixels, **self._options).last_hidden_state[:, 0]


class ClipFeatures(ImageFeatures):
    """Image and text embeddings of CLIP (Radford et al., ICML 2021).

    Images are resized bicubically to the network's side and cropped to the centre, as published.

    Args:
        folder: transformers folder of a CLIP model, with its tokenizer if texts are asked for.

    Raises:
        ValueError: another model, or tensors are missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoConfig, CLIPModel

        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind != "clip":
            raise ValueError(f"weights: expected a folder of CLIP, got {kind!r} in {folder}")
        self._folder = folder
        self._model: Any = load_whole(CLIPModel, folder)
        self._texts: dict[str, Tensor] = {}

    @property
    def _network(self) -> nn.Module:
        return self._model

    def _encode(self, images: Tensor) -> Tensor:
        side = self._model.config.vision_config.image_size
        square = center_crop(shorter_side(images, side, "bicubic").clamp(0, 1), [side, side])
        pixels = normalised(square, CLIP_MEAN, CLIP_STD)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        return CLIPTokenizer.from_pretrained(self._folder, local_files_only=True)

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """Unit vector of a text, [D]; what exceeds the network's length is cut off."""
        if text not in self._texts:
            length = self._model.config.text_config.max_position_embeddings
            tokens = self._tokenizer(
                [text], truncation=True, max_length=length, return_tensors="pt"
            )
            tokens = tokens.to(self._model.device)
            pooled = self._model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            self._texts[text] = F.normalize(self._model.text_projection(pooled).float(), dim=-1)[0]
        return self._texts[text].to(self._model.device)


@functools.lru_cache(maxsize=4)
def shared_dino(folder: str) -> DinoFeatures:
    """The one DINO of all metrics with the same weights."""
    return DinoFeatures(Path(folder))


@functools.lru_cache(maxsize=4)
def shared_clip(folder: str) -> ClipFeatures:
    """The one CLIP of all metrics with the same weights."""
    return ClipFeatures(Path(folder))


def load_whole(model: Any, folder: Path, **options: bool) -> Any:
    """A frozen float32 transformers model of a local folder.

    Args:
        model: class of the model.
        folder: what `save_pretrained` or `hf download` wrote.
        options: further arguments of its constructor.

    Raises:
        ValueError: the folder lacks tensors.
    """
    network, report = model.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
    )
    if report["missing_keys"]:
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(
            f"weights: {folder} lacks {len(report['missing_keys'])} tensors of "
            f"{model.__name__} ({names} ...); download the folder again"
        )
    return network.requires_grad_(False).eval()


def shorter_side(images: Tensor, side: int, mode: str) -> Tensor:
    """Images [N, 3, H, W] with a shorter side of `side` pixels, antialiased."""
    height, width = images.shape[-2:]
    factor = side / min(height, width)
    size = (max(side, int(height * factor)), max(side, int(width * factor)))
    if size == (height, width):
        return images
    return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=True)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images less a mean colour, over a standard deviation per channel."""
    centre, scale = (images.new_tensor(v)[:, None, None] for v in (mean, std))
    return (images - centre) / scale
