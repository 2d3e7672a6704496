"""Small random networks in the published layouts, in place of weights that are not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

_VIT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def write_vit(folder: Path) -> Path:
    """A DINO folder (class ViTModel) for 64-pixel images in patches of 16."""
    torch.manual_seed(0)
    config = ViTConfig(**_VIT, image_size=64, patch_size=16, initializer_range=0.4)
    model = ViTModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    return folder


def write_dinov2(folder: Path) -> Path:
    """A DINOv2 folder for 56-pixel images in patches of 14."""
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(**_VIT, image_size=56, patch_size=14, initializer_range=0.4))
    model.save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    """A CLIP folder for 48-pixel images and a tokenizer that knows single letters."""
    vocabulary = write_tokenizer(folder)
    torch.manual_seed(0)
    text = {**_VIT, "max_position_embeddings": 12, "vocab_size": len(vocabulary)}
    ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": len(vocabulary) - 1}
    config = CLIPConfig(
        text_config={**text, **ends},
        vision_config={**_VIT, "image_size": 48, "patch_size": 16},
        projection_dim=20,
        initializer_factor=8.0,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Files of CLIP's tokenizer with letters in place of words; returns its vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {n: i for i, n in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return vocabulary


def write_arcface(path: Path, kernel: np.ndarray, side: int = 112) -> Path:
    """One convolution and a mean, with the input and output of w600k_r50.onnx."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Conv", ["input.1", "kernel"], ["map"], strides=[16, 16]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["683"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [None, 3, side, side])],
        [helper.make_tensor_value_info("683", TensorProto.FLOAT, [None, len(kernel)])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def random_kernel() -> np.ndarray:
    """Weights for `write_arcface`."""
    return np.random.default_rng(0).normal(size=(512, 3, 16, 16)).astype(np.float32)


class ScriptedI3d(nn.Module):
    """Interface of StyleGAN-V's file: [N, 3, T, 224, 224] in [-1, 1] to [N, 6]."""

    def forward(
        self, video: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = True
    ) -> Tensor:
        assert not rescale and not resize and return_features
        assert video.shape[-1] == 224 and video.shape[-2] == 224
        halves = video.unflatten(2, (2, video.shape[2] // 2)).mean(dim=(3, 4, 5))
        return halves.flatten(1)


def write_i3d(path: Path) -> Path:
    """A script that gives mean colours of a clip's halves."""
    torch.jit.script(ScriptedI3d()).save(path)
    return path
