"""At what sizes a model runs; the wording of what it refuses."""

from __future__ import annotations

from anti_i2v_lit.surrogates.dynamicrafter.settings import PUBLISHED, ModelSettings


def check_size(size: int) -> None:
    """Refuse a size of which no model was published.

    Raises:
        ValueError: naming the sizes.
    """
    if size and size not in PUBLISHED:
        raise ValueError(f"size must be 0, {', '.join(map(str, PUBLISHED))}, got {size}")


def view_size_of(settings: ModelSettings, height: int, width: int) -> tuple[int, int]:
    """Return (H, W) in pixels at which a model runs.

    Args:
        settings: of the model.
        height: wanted, pixels; 0 for the model's own.
        width: wanted, pixels; 0 for the model's own.

    Raises:
        ValueError: the U-Net's levels could not be halved and doubled to the same size.
    """
    ratio = 2 ** (len(settings.first_stage["ch_mult"]) - 1)
    unit = ratio * 2 ** (len(settings.unet["channel_mult"]) - 1)
    own = settings.latent_size
    size = (height or ratio * own[0], width or ratio * own[1])
    if size[0] % unit or size[1] % unit:
        raise ValueError(
            f"height and width must be multiples of {unit} pixels, got {size[0]} x {size[1]}"
        )
    return size


def clip_length(settings: ModelSettings, num_frames: int) -> int:
    """Return the number of frames of a clip.

    Args:
        settings: of the model.
        num_frames: wanted; 0 for the model's own.

    Raises:
        ValueError: more frames than the model has image tokens for.
    """
    own = settings.resampler.get("video_length") or settings.unet.get("temporal_length") or 16
    if num_frames > own:
        raise ValueError(
            f"num_frames must be at most {own}, the frames this model has image tokens for, "
            f"got {num_frames}"
        )
    return num_frames or own
