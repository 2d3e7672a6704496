"""Canvas and views: geometry, the attacker's pipelines done with Pillow, gradients, draws."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.data.framing import VIEW_KINDS, Framing, FramingConfig, View

ONLY = {f"{kind}_weight": 0.0 for kind in VIEW_KINDS}
POINTS = ((0.5, 0.5),) * 5
WIDE, SQUARE, TALL = (192, 320), (192, 192), (256, 144)


def face(left: float, top: float, right: float, bottom: float) -> Face:
    return Face(box=(left, top, right, bottom), score=1.0, landmarks=POINTS)


def only(kind: str, **fields) -> Framing:
    return Framing(FramingConfig(**{**ONLY, f"{kind}_weight": 1.0}, **fields))


def photo(height: int = 400, width: int = 512) -> torch.Tensor:
    return torch.from_numpy(astronaut()[:height, :width].copy()).permute(2, 0, 1) / 255.0


def smooth(size: tuple[int, int]) -> torch.Tensor:
    """Colour waves, far below the canvas's resolution limit."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / np.array(size).reshape(2, 1, 1)
    waves = [0.5 + 0.4 * np.sin(6 * x + k * y) * np.cos(5 * y + k) for k in (1, 2, 3)]
    return torch.from_numpy(np.stack(waves)).float()


def pillow_view(pixels: torch.Tensor, size: tuple[int, int], box=None) -> np.ndarray:
    channels = [
        np.asarray(Image.fromarray(c).resize(size[::-1], Image.Resampling.BICUBIC, box=box))
        for c in pixels.numpy()
    ]
    return np.clip(np.stack(channels), 0, 1)


def holds(view: View, seen: Face) -> bool:
    left, top, right, bottom = seen.box
    room = 1e-9
    return (
        view.box[0] <= left + room
        and view.box[1] <= top + room
        and view.box[2] >= right - room
        and view.box[3] >= bottom - room
    )


def aspect_px(view: View, photo_size: tuple[int, int]) -> float:
    left, top, right, bottom = view.box
    return (right - left) * photo_size[1] / ((bottom - top) * photo_size[0])


@pytest.mark.parametrize(
    ("photo_size", "view_size", "expected"),
    [
        ((3000, 4000), SQUARE, (256, 341)),
        ((4000, 3000), SQUARE, (341, 256)),
        ((200, 300), SQUARE, (200, 300)),
        ((100, 120), SQUARE, (100, 120)),
        ((3000, 4000), (480, 720), (540, 720)),
        ((4000, 3000), (480, 720), (960, 720)),
        ((1, 5000), SQUARE, (1, 5000)),
    ],
)
def test_canvas_size(photo_size, view_size, expected):
    assert Framing(FramingConfig()).canvas_size(photo_size, view_size) == expected


def test_canvas_is_pillows_bicubic():
    canvas = Framing(FramingConfig(canvas_side_px=100)).to_canvas(photo(), (64, 64))
    np.testing.assert_allclose(canvas.numpy(), pillow_view(photo(), (100, 128)), atol=2e-5)


def test_small_photo_is_its_own_canvas():
    small = photo(90, 80)
    assert torch.equal(Framing(FramingConfig()).to_canvas(small, SQUARE), small)


def test_residual_comes_back_through_the_canvas():
    framing = Framing(FramingConfig(canvas_side_px=64))
    residual = (smooth((64, 85)) - 0.5) * 0.1
    full = framing.to_photo(residual, (600, 800))
    assert full.shape == (3, 600, 800)
    again = pillow_view(full + 0.5, (64, 85)) - 0.5
    np.testing.assert_allclose(again, residual.numpy(), atol=0.001)


def test_residual_never_overshoots_and_zero_stays_zero():
    framing = Framing(FramingConfig())
    signs = torch.sign(torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(1)))
    residual = signs * 16 / 255
    residual[:, :20] = 0
    residual[2] = residual[2].abs()
    full = framing.to_photo(residual, (333, 401))
    assert full.abs().max() <= residual.abs().max()
    assert full[2].min() >= 0
    # Rows at least a kernel away from the first change.
    assert torch.equal(full[:, : 17 * 333 // 40], torch.zeros_like(full[:, : 17 * 333 // 40]))
    assert torch.equal(framing.to_photo(residual, (40, 50)), residual)


def test_twelve_megapixels():
    full = Framing(FramingConfig()).to_photo(torch.rand(3, 256, 341), (3000, 4000))
    assert full.shape == (3, 3000, 4000)


def test_residual_larger_than_photo_is_refused():
    with pytest.raises(ValueError, match="never larger"):
        Framing(FramingConfig()).to_photo(torch.zeros(3, 20, 20), (19, 30))


def test_main_view_without_faces_is_the_centre_crop():
    framing = Framing(FramingConfig())
    for photo_size, box in [
        ((300, 400), (0.125, 0, 0.875, 1)),
        ((400, 300), (0, 0.125, 1, 0.875)),
        ((300, 300), (0, 0, 1, 1)),
    ]:
        np.testing.assert_allclose(framing.main_view(photo_size, SQUARE, []).box, box, atol=1e-12)


@pytest.mark.parametrize("photo_size", [(600, 900), (900, 600), (300, 1600)])
@pytest.mark.parametrize("view_size", [WIDE, SQUARE, TALL])
def test_main_view_has_the_aspect_and_holds_the_largest_face(photo_size, view_size):
    framing = Framing(FramingConfig())
    for seen in (face(0.0, 0.0, 0.1, 0.1), face(0.9, 0.85, 1.0, 1.0), face(0.45, 0.4, 0.5, 0.5)):
        small = face(0.5, 0.98, 0.51, 0.99)
        view = framing.main_view(photo_size, view_size, [small, seen])
        assert view.kind == "crop"
        assert aspect_px(view, photo_size) == pytest.approx(view_size[1] / view_size[0])
        assert holds(view, seen)
        # Largest possible: it fills the photo along one axis.
        left, top, right, bottom = view.box
        assert max(right - left, bottom - top) == pytest.approx(1.0)


def test_face_wider_than_the_crop_is_centred():
    view = Framing(FramingConfig()).main_view((300, 1200), SQUARE, [face(0.3, 0.1, 0.9, 0.9)])
    assert (view.box[0] + view.box[2]) / 2 == pytest.approx(0.6)


@pytest.mark.parametrize("kind", ["crop", "face"])
@pytest.mark.parametrize("view_size", [WIDE, SQUARE, TALL])
def test_drawn_crops_hold_a_face_and_keep_the_aspect(kind, view_size):
    framing = only(kind, jitter=0.3)
    seen = face(0.05, 0.1, 0.15, 0.25)
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        view = framing.draw_view((600, 900), view_size, [seen], generator)
        assert view.kind == kind
        assert holds(view, seen)
        assert aspect_px(view, (600, 900)) == pytest.approx(view_size[1] / view_size[0])


def test_face_crops_span_the_scales():
    framing = only("face", face_scale_low=2.0, face_scale_high=4.0)
    seen = face(0.45, 0.4, 0.52, 0.5)
    generator = torch.Generator().manual_seed(0)
    views = [framing.draw_view((600, 900), SQUARE, [seen], generator) for _ in range(200)]
    heights = np.array([view.box[3] - view.box[1] for view in views]) / 0.1
    assert heights.min() >= 2 - 1e-9
    assert heights.max() <= 4 + 1e-9
    assert heights.min() < 2.1
    assert heights.max() > 3.9


def test_faces_are_drawn_by_area():
    framing = only("face", face_scale_high=1.5, jitter=0.0)
    big, small = face(0.0, 0.0, 0.2, 0.3), face(0.8, 0.7, 0.9, 0.9)
    generator = torch.Generator().manual_seed(0)
    views = [framing.draw_view((500, 500), SQUARE, [small, big], generator) for _ in range(400)]
    share = np.mean([holds(view, big) for view in views])
    # 0.06 against 0.02; three standard deviations of 400 draws are 0.065.
    assert share == pytest.approx(0.75, abs=0.065)


def test_without_faces_face_crops_become_the_whole_frame():
    view = only("face").draw_view((300, 400), SQUARE, [], torch.Generator())
    assert view == View(kind="letterbox", box=(0, 0, 1, 1), letterbox=True)


def test_kinds_are_drawn_by_weight():
    framing = Framing(FramingConfig(crop_weight=3, face_weight=5, letterbox_weight=0))
    generator = torch.Generator().manual_seed(0)
    seen = [face(0.4, 0.4, 0.5, 0.5)]
    kinds = [framing.draw_view((300, 400), SQUARE, seen, generator).kind for _ in range(500)]
    assert "letterbox" not in kinds
    assert kinds.count("face") / 500 == pytest.approx(5 / 8.1, abs=0.065)


def test_draw_depends_on_the_generator_alone():
    framing = Framing(FramingConfig())
    seen = [face(0.4, 0.4, 0.5, 0.5)]

    def drawn(seed: int) -> list[View]:
        generator = torch.Generator().manual_seed(seed)
        return [framing.draw_view((300, 400), WIDE, seen, generator) for _ in range(20)]

    first = drawn(7)
    torch.manual_seed(99)
    torch.rand(5)
    assert drawn(7) == first
    assert drawn(8) != first


def test_every_kind_takes_the_same_count_of_numbers():
    after = []
    for kind in VIEW_KINDS:
        generator = torch.Generator().manual_seed(3)
        only(kind).draw_view((300, 400), WIDE, [face(0.4, 0.4, 0.5, 0.5)], generator)
        after.append(torch.rand((), generator=generator).item())
    assert len(set(after)) == 1


def test_stretch_is_pillows_resize():
    view = View(kind="stretch", box=(0, 0, 1, 1))
    shown = Framing(FramingConfig()).render(photo()[None], view, (96, 96))[0]
    np.testing.assert_allclose(shown.numpy(), pillow_view(photo(), (96, 96)), atol=2e-5)


@pytest.mark.parametrize(("view_size", "inner"), [((96, 96), (75, 96)), ((50, 128), (50, 64))])
def test_letterbox_is_pillows_resize_between_black_bars(view_size, inner):
    view = View(kind="letterbox", box=(0, 0, 1, 1), letterbox=True)
    shown = Framing(FramingConfig()).render(photo()[None], view, view_size)[0]
    top, left = (view_size[0] - inner[0]) // 2, (view_size[1] - inner[1]) // 2
    expected = np.zeros((3, *view_size), np.float32)
    rows, columns = slice(top, top + inner[0]), slice(left, left + inner[1])
    expected[:, rows, columns] = pillow_view(photo(), inner)
    np.testing.assert_allclose(shown.numpy(), expected, atol=2e-5)


def test_centre_crop_is_pillows():
    framing = Framing(FramingConfig())
    view = framing.main_view((400, 512), (96, 96), [])
    shown = framing.render(photo()[None], view, (96, 96))[0]
    expected = pillow_view(photo()[:, :, 56:456].contiguous(), (96, 96))
    np.testing.assert_allclose(shown.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("view_size", [WIDE, SQUARE, TALL])
def test_view_of_canvas_equals_view_of_photo(view_size):
    framing = Framing(FramingConfig())
    size = (1200, 1733)
    full = smooth(size)
    canvas = framing.to_canvas(full, view_size)
    seen = [face(0.6, 0.3, 0.7, 0.45)]
    generator = torch.Generator().manual_seed(0)
    views = [framing.draw_view(size, view_size, seen, generator) for _ in range(12)]
    for view in [framing.main_view(size, view_size, seen), *views]:
        ours = framing.render(canvas[None], view, view_size)
        direct = framing.render(full[None], view, view_size)
        # A letterboxed frame may round to one row more on the canvas than on the photo.
        tolerance = 0.01 if not view.letterbox else 1.0
        assert (ours - direct).abs().max() < tolerance
        assert (ours - direct).abs().mean() < 0.006


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_gradients_reach_the_box_and_nothing_else(kind):
    framing = only(kind)
    seen = [face(0.4, 0.4, 0.55, 0.6)]
    size = (120, 200)
    generator = torch.Generator().manual_seed(5)
    view = framing.draw_view(size, (64, 64), seen, generator)
    # Saturated pixels on purpose: bicubic overshoot there must not cut gradients.
    canvas = (torch.rand(1, 3, *size, generator=generator) > 0.5).float().requires_grad_()
    shown = framing.render(canvas, view, (64, 64))
    assert shown.min() >= 0
    assert shown.max() <= 1
    weights = torch.randn(shown.shape, generator=generator)
    (gradient,) = torch.autograd.grad((shown * weights).sum(), canvas)
    # The same as where nothing is clipped: clipping is passed straight through.
    grey = torch.full_like(canvas, 0.5, requires_grad=True)
    (linear,) = torch.autograd.grad((framing.render(grey, view, (64, 64)) * weights).sum(), grey)
    assert torch.equal(gradient, linear)
    left, top, right, bottom = (v * s for v, s in zip(view.box, (200, 120) * 2, strict=True))
    inside = torch.zeros(size, dtype=torch.bool)
    inside[int(np.floor(top)) : int(np.ceil(bottom)), int(np.floor(left)) : int(np.ceil(right))] = 1
    assert (gradient[0][:, inside] != 0).all()
    assert (gradient[0][:, ~inside] == 0).all()


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_render_gradient_is_right(kind):
    framing = only(kind)
    generator = torch.Generator().manual_seed(5)
    view = framing.draw_view((9, 12), (6, 5), [face(0.3, 0.3, 0.6, 0.7)], generator)
    canvas = 0.3 + 0.4 * torch.rand(1, 3, 9, 12, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(
        lambda x: framing.render(x, view, (6, 5)), canvas.requires_grad_()
    )


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_slivers(size):
    framing = Framing(FramingConfig())
    canvas = framing.to_canvas(torch.rand(3, *size), SQUARE)
    generator = torch.Generator().manual_seed(0)
    views = [framing.draw_view(size, SQUARE, [], generator) for _ in range(20)]
    for view in [framing.main_view(size, SQUARE, []), *views]:
        shown = framing.render(canvas[None], view, SQUARE)
        assert shown.shape[-2:] == SQUARE
        assert shown.isfinite().all()


@pytest.mark.parametrize(
    "fields",
    [
        {"canvas_side_px": 8},
        {"face_scale_low": 0.5},
        {"face_scale_high": 1.0},
        {"jitter": 0.7},
        {"crop_weight": -1.0},
        {"stretch_weight": float("nan")},
    ],
)
def test_refuses_settings(fields):
    with pytest.raises(ValueError, match=f"framing.{next(iter(fields))}"):
        FramingConfig(**fields)


def test_refuses_weights_of_zero_and_bad_views():
    with pytest.raises(ValueError, match="all view weights are 0"):
        FramingConfig(**ONLY)
    with pytest.raises(ValueError, match="Did you mean 'crop'"):
        View(kind="crob", box=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="box"):
        View(kind="crop", box=(0, 0, 1.5, 1))
