"""What clips Open-Sora 1.2 takes, and how its published sampler is set.

The published sampler (hpcaitech/Open-Sora, branch opensora/v1.2,
`configs/opensora-v1-2/inference/sample.py`) makes 51 frames of 240 x 426 pixels ("240p", 9:16) at
24 frames per second with the score 6.5. Published sizes are (H, W) buckets of equal area
(`opensora/datasets/aspect.py`), and the model takes others as well.
"""

from __future__ import annotations

OWN_SIZE = (240, 426)
OWN_FRAMES = 51
OWN_FPS = 24.0
OWN_SCORE = 6.5
# One latent frame holds four video frames and is the photo itself; the fifth begins the next.
SHORTEST_FRAMES = 5
_SMALLEST_SIDE = 16


def view_size_of(height: int, width: int) -> tuple[int, int]:
    """Return (H, W) in pixels of a configuration.

    The published sizes are not all multiples of the 8 pixels of a latent: what is left over at
    the right and at the bottom is seen by the encoder and has no latent of its own.

    Args:
        height: wanted, pixels; 0 for the published sampler's.
        width: wanted, pixels; 0 for the published sampler's.

    Raises:
        ValueError: a side below 16 pixels.
    """
    size = (height or OWN_SIZE[0], width or OWN_SIZE[1])
    if min(size) < _SMALLEST_SIDE:
        raise ValueError(
            f"height and width must be at least {_SMALLEST_SIDE} pixels, or 0 for "
            f"{OWN_SIZE[0]} x {OWN_SIZE[1]}, got {height} x {width}"
        )
    return size


def check_num_frames(num_frames: int) -> None:
    """Refuse clips in which there is nothing to predict; 0 stands for the default.

    Raises:
        ValueError: 1 to 4 frames, or a negative number.
    """
    if num_frames and num_frames < SHORTEST_FRAMES:
        raise ValueError(
            f"num_frames must be at least {SHORTEST_FRAMES}, or 0 for the default, got "
            f"{num_frames}: up to 4 video frames are one latent frame, and the first latent "
            "frame is the photo itself"
        )
