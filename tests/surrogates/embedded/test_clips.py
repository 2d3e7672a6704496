import pathlib

import pytest
import torch

from anti_i2v_lit.surrogates.embedded.clips import (
    ClipOptions,
    ClipSource,
    encode_shards,
    load_shards,
    make_clip,
)
from anti_i2v_lit.surrogates.embedded.family import NoPictureEncoder
from anti_i2v_lit.surrogates.embedded.frame_autoencoder import AutoencoderShape, FrameAutoencoder
from anti_i2v_lit.surrogates.embedded.motion import (
    ACTS,
    CAMERAS,
    PAN,
    TURN,
    Face,
    Framing,
    Program,
    random_program,
    render,
)
from anti_i2v_lit.surrogates.embedded.text import UNKNOWN, build_tokenizer
from tests.surrogates.embedded.small import SMALL_UNET


def spot(x: float, y: float, size: int = 96) -> torch.Tensor:
    """A bright spot on black, ``[3, size, size]`` in [-1, 1]; x and y are shares."""
    axis = (torch.arange(size) + 0.5) / size
    hill = torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * 0.03**2))
    return (2 * hill - 1).expand(3, -1, -1).contiguous()


def centroid(frame: torch.Tensor) -> tuple[float, float]:
    weight = (frame[0] + 1).clamp_min(0)
    axis = (torch.arange(len(weight)) + 0.5) / len(weight)
    total = weight.sum()
    return float((weight.sum(0) * axis).sum() / total), float((weight.sum(1) * axis).sum() / total)


@pytest.mark.parametrize(
    ("camera", "way"),
    [("pans left", (1, 0)), ("pans right", (-1, 0)), ("pans up", (0, 1)), ("pans down", (0, -1))],
)
def test_a_pan_moves_the_picture_the_other_way(camera: str, way: tuple[int, int]) -> None:
    clip = render(spot(0.5, 0.5), Program(camera=camera), framing=Framing(), face=Face(), size=48)
    assert clip.shape == (5, 3, 48, 48)
    start, end = centroid(clip[0]), centroid(clip[-1])
    moved = ((end[0] - start[0]), (end[1] - start[1]))
    assert moved[0] * way[0] + moved[1] * way[1] == pytest.approx(PAN, abs=0.01)


def test_a_turn_moves_the_face_and_not_the_corner() -> None:
    face = Face(x=0.5, y=0.5)
    still = Framing(side=1.0)
    program = Program(act="turns the head left")
    moving = render(spot(0.5, 0.5), program, framing=still, face=face, size=48)
    corner = render(spot(0.08, 0.92), program, framing=still, face=face, size=48)
    assert centroid(moving[-1])[0] < centroid(moving[0])[0] - 0.7 * TURN * face.height
    assert abs(centroid(corner[-1])[0] - centroid(corner[0])[0]) < 0.01


@pytest.mark.parametrize("act", ACTS)
def test_every_act_changes_the_clip_and_starts_from_the_picture(act: str) -> None:
    torch.manual_seed(0)
    picture = torch.rand(3, 96, 96) * 2 - 1
    quiet = render(picture, Program(), framing=Framing(), face=Face(), size=48)
    clip = render(picture, Program(act=act), framing=Framing(), face=Face(), size=48)
    torch.testing.assert_close(clip[0], quiet[0])
    torch.testing.assert_close(quiet[0], quiet[4])
    assert (clip[2] - quiet[2]).abs().max() > 0.05


def test_captions_use_known_words_only() -> None:
    tokenizer = build_tokenizer()
    generator = torch.Generator().manual_seed(0)
    captions = {random_program(generator).caption for _ in range(400)}
    captions |= {Program(camera=camera, act=ACTS[0], speed="slowly").caption for camera in CAMERAS}
    for caption in captions | {"the person moves"}:
        tokens = tokenizer(caption).input_ids
        assert tokenizer.convert_tokens_to_ids(UNKNOWN) not in tokens
        assert len(tokens) <= 16


def source() -> ClipSource:
    generator = torch.Generator().manual_seed(0)
    return ClipSource(
        photos=torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8),
        faces=(Face(), Face(height=0.7)),
        videos=(torch.randint(0, 256, (9, 3, 48, 48), generator=generator, dtype=torch.uint8),),
        video_captions=("the person talks",),
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_clips_depend_on_their_number_alone(share: float) -> None:
    options = ClipOptions(real_share=share)
    first, caption = make_clip(source(), 7, size=32, options=options)
    again, _ = make_clip(source(), 7, size=32, options=options)
    assert first.shape == (5, 3, 32, 32)
    assert first.abs().max() <= 1.0 + 1e-5
    assert torch.equal(first, again)
    assert caption.startswith(("the person", "the camera"))


def test_encoding_continues_where_it_stopped(tmp_path: pathlib.Path) -> None:
    model = FrameAutoencoder(
        AutoencoderShape(block_channels=(8, 8, 8), latent_channels=4, norm_groups=4, sample_size=32)
    )
    options = ClipOptions(count=5, shard=2)
    device = torch.device("cpu")
    encoder = SMALL_UNET.picture_encoder()
    encode_shards(model, encoder, source(), tmp_path, options=options, device=device)
    whole = load_shards(tmp_path, 5)
    (tmp_path / "000002.pt").unlink()
    encode_shards(model, encoder, source(), tmp_path, options=options, device=device)
    again = load_shards(tmp_path, 5)
    assert whole.latents.shape == (5, 5, 4, 8, 8)
    assert whole.tokens.shape == (5, 5, 32)
    assert len(whole.captions) == 5
    assert torch.equal(whole.latents, again.latents)
    assert torch.equal(whole.tokens, again.tokens)


def test_a_family_without_an_image_encoder_has_no_tokens(tmp_path: pathlib.Path) -> None:
    model = FrameAutoencoder(
        AutoencoderShape(block_channels=(8, 8, 8), latent_channels=4, norm_groups=4, sample_size=32)
    )
    encode_shards(
        model,
        NoPictureEncoder(),
        source(),
        tmp_path,
        options=ClipOptions(count=1),
        device=torch.device("cpu"),
    )
    assert load_shards(tmp_path, 1).tokens.shape == (1, 0, 0)


def test_shards_of_another_version_are_refused(tmp_path: pathlib.Path) -> None:
    torch.save({"latents": torch.zeros(1, 5, 4, 8, 8), "captions": [""]}, tmp_path / "000000.pt")
    with pytest.raises(ValueError, match="without image tokens"):
        load_shards(tmp_path, 1)


def test_bad_programs_and_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="choose"):
        Program(camera="flies")
    with pytest.raises(ValueError, match="speed"):
        Program(speed="soon")
    with pytest.raises(ValueError, match="height"):
        Face(height=0.0)
