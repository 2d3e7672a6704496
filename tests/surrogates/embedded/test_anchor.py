import pytest
import torch
from torch.nn import functional

from anti_i2v_lit.surrogates.embedded.anchor import (
    AnchorOptions,
    anchor_copy_init,
    position_query,
    rotary_slots,
    trainable_positions,
)
from anti_i2v_lit.surrogates.embedded.denoiser import DenoiserShape, build_denoiser, rotary_tables
from anti_i2v_lit.surrogates.embedded.text import TEXT_LENGTH, TEXT_WIDTH

SHAPE = DenoiserShape(layers=3)
SIDE = SHAPE.latent_size // SHAPE.patch
TOKENS = SIDE * SIDE


def forward(model: torch.nn.Module, clip: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    condition = torch.zeros_like(clip)
    condition[:, 0] = first
    generator = torch.Generator().manual_seed(3)
    return model(
        hidden_states=torch.cat([clip, condition], dim=2),
        encoder_hidden_states=torch.randn(1, TEXT_LENGTH, TEXT_WIDTH, generator=generator),
        timestep=torch.tensor([500]),
        image_rotary_emb=rotary_tables(SHAPE),
        return_dict=False,
    )[0]


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Attention maps of one forward pass of an anchored model, ``[B, heads, S, S]`` a block."""
    torch.manual_seed(0)
    model = build_denoiser(SHAPE)
    trainable_positions(model)
    anchor_copy_init(model)
    seen: list[torch.Tensor] = []
    real = functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **rest: object):
        seen.append(torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1))
        return real(query, key, value, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        forward(model, torch.randn(1, 5, 16, 16, 16), torch.randn(1, 16, 16, 16))
    return seen


def token(frame: int, row: int, column: int) -> int:
    return TEXT_LENGTH + frame * TOKENS + row * SIDE + column


@pytest.mark.parametrize("frame", [1, 4])
@pytest.mark.parametrize("place", [(3, 4), (0, 0), (7, 7), (7, 0)])
def test_first_block_looks_at_the_same_place_of_frame_one(
    maps: list[torch.Tensor], frame: int, place: tuple[int, int]
) -> None:
    row = maps[0][0, 0, token(frame, *place)]
    assert int(row.argmax()) == token(0, *place)
    assert row.max() > 0.7


def test_second_block_looks_at_the_four_neighbours(maps: list[torch.Tensor]) -> None:
    for head, (down, right) in enumerate([(-1, 0), (1, 0), (0, -1), (0, 1)]):
        row = maps[1][0, head, token(2, 4, 3)]
        assert int(row.argmax()) == token(0, 4 + down, 3 + right)
        assert row.max() > 0.7


def test_later_frames_carry_the_first_frames_picture_after_one_block() -> None:
    torch.manual_seed(0)
    model = build_denoiser(SHAPE)
    trainable_positions(model)
    anchor_copy_init(model)
    hidden: list[torch.Tensor] = []
    block = model.transformer_blocks[0]
    block.register_forward_hook(lambda module, inputs, output: hidden.append(output[0]))
    first = torch.randn(1, 16, 16, 16)
    with torch.no_grad():
        forward(model, torch.randn(1, 5, 16, 16, 16), first)
    frames = hidden[0].reshape(5, TOKENS, -1)[..., : SHAPE.head_dim]
    patches = functional.unfold(first, 2, stride=2)[0].T
    for frame in frames[1:]:
        likeness = torch.corrcoef(torch.stack([frame.flatten(), patches.flatten()]))[0, 1]
        assert likeness > 0.8


def test_constant_query_and_key_peak_at_the_offset() -> None:
    query, key = position_query(64, (2, -3), AnchorOptions())
    cosines, sines = rotary_tables(SHAPE)
    from diffusers.models.embeddings import apply_rotary_emb

    def turn(vector: torch.Tensor) -> torch.Tensor:
        rows = vector.expand(1, 1, len(cosines), -1)
        return apply_rotary_emb(rows, (cosines, sines))[0, 0]

    scores = turn(query)[4 * SIDE + 4] @ turn(key)[:TOKENS].T
    assert int(scores.argmax()) == 6 * SIDE + 1


def test_rotary_slots_cover_the_head_in_order() -> None:
    time, height, width = rotary_slots(64)
    assert (time, height, width) == (slice(0, 16), slice(16, 40), slice(40, 64))


def test_models_that_do_not_fit_are_refused() -> None:
    model = build_denoiser(DenoiserShape(head_dim=32))
    with pytest.raises(ValueError, match="patch of 64"):
        anchor_copy_init(model)
    with pytest.raises(ValueError, match="below 0"):
        AnchorOptions(gain=-1.0)
