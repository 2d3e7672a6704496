"""Settings of the attack itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from anti_i2v_lit.checks import check_at_least, check_between


@dataclass(kw_only=True)
class AttackConfig:
    """How often, how far and against what the photo is changed.

    Attributes:
        steps: sign steps per photo.
        step_8bit: size of a step, in grey levels: of RGB; of a* and b* at 110 units for 255 levels
            in the chroma space; in root mean square over pixels in the low-frequency space.
        budget_8bit: largest change of an RGB channel that is asked for, in grey levels of an 8-bit
            file; a lossless file keeps it, the rounding of a lossy encoder comes on top.
        momentum: share of the accumulated gradient kept per step, 0 to 1 (MI-FGSM; 0 = plain PGD).
        random_start: random signs at the start, as a share of the budget. Untargeted distances
            have no gradient at the photo itself, so 0 is refused by none but useful to few.
        num_draws: distinct (view, timestep, noise) draws per photo; each is encoded once and
            its reference features are cached, so that a step costs one forward and backward.
        timestep_low: lowest timestep, as a share of the training schedule.
        timestep_high: highest timestep, as a share of the training schedule.
        batch_size: photos optimised together on one device.
        checkpoint_every: steps between saves of the photos in flight; most that a kill can lose.
        transforms: purifications to draw from, one per step and photo: a list of
            {name, severity (largest, 0 to 1), <fields of that purification>}.
        transform_share: share of steps that use a transform, 0 to 1.
        anchor: target image of the anchor terms: "texture" (built in) or the path of an image.
        references: videos whose first frames are the reference clips, one of which every draw
            takes: a file, a folder, a glob, or tar shards that hold videos; empty for the clean
            view standing still.
        prompt: text condition of the reference clip; {caption} in it stands for the photo's own
            caption, where a shard gives one.
        prompts: texts like `prompt`, of which every draw takes one; empty for `prompt` alone.
        encoder_first: take the gradient through the denoiser down to the image latent first and
            encode the photo again for the rest, so that the activations of both never exist
            together. Changes no byte of a cloak; costs one more encoding per step.
        num_verification_draws: fixed draws of the main view by which a photo is judged before
            and after; they are never used to optimise.
    """

    steps: int = 200
    step_8bit: float = 1.0
    budget_8bit: float = 16.0
    momentum: float = 0.0
    random_start: float = 0.1
    num_draws: int = 16
    timestep_low: float = 0.0
    timestep_high: float = 1.0
    batch_size: int = 1
    checkpoint_every: int = 25
    transforms: list[dict[str, Any]] = field(default_factory=list)
    transform_share: float = 0.5
    anchor: str = "texture"
    references: str = ""
    prompt: str = "a person is talking"
    prompts: list[str] = field(default_factory=list)
    encoder_first: bool = False
    num_verification_draws: int = 2

    def __post_init__(self) -> None:
        """Refuse values that cannot mean anything."""
        for name in ("steps", "num_draws", "batch_size", "checkpoint_every"):
            check_at_least(getattr(self, name), 1, f"attack.{name}")
        check_at_least(self.num_verification_draws, 1, "attack.num_verification_draws")
        check_between(self.budget_8bit, 0.5, 255.0, "attack.budget_8bit")
        check_between(self.step_8bit, 0.01, self.budget_8bit, "attack.step_8bit")
        for name in ("momentum", "random_start", "transform_share"):
            check_between(getattr(self, name), 0.0, 1.0, f"attack.{name}")
        check_between(self.timestep_low, 0.0, 1.0, "attack.timestep_low")
        check_between(self.timestep_high, self.timestep_low, 1.0, "attack.timestep_high")

    def texts_for(self, caption: str) -> tuple[str, ...]:
        """All text conditions of a photo with this caption ("" if it has none)."""
        patterns = self.prompts or [self.prompt]
        return tuple(text.replace("{caption}", caption).strip() for text in patterns)
