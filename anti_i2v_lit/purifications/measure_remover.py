"""What a remover takes from cloaks that it was not trained on.

    python -m anti_i2v_lit.purifications.measure_remover --clean DIR --cloaked DIR [--remover FILE]

Everything is measured at the size at which the remover works. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anti_i2v_lit.checkpoints import EMBEDDED
from anti_i2v_lit.purifications.remover import LearnedRemover
from anti_i2v_lit.purifications.train_remover import Pair, load_pairs
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX, shrink


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Root mean squares in grey levels, over photos.

    Attributes:
        before: of cloak minus photo.
        after: of purified cloak minus photo.
        harm: of purified photo minus photo, what the remover does to photos without a cloak.
    """

    before: float
    after: float
    harm: float

    @property
    def energy_removed(self) -> float:
        """Share of the residual's mean square that is gone; negative if more was added."""
        return 1.0 - (self.after / self.before) ** 2


def measure(remover: LearnedRemover, pairs: Sequence[Pair]) -> Removal:
    """Remove with full severity at the default working size.

    Args:
        remover: the purification.
        pairs: see `load_pairs`.
    """
    errors = []
    for pair in pairs:
        photo, cloak = (
            shrink(image[None].float() / 255.0, DEFAULT_WORK_PX).clamp(0.0, 1.0) for image in pair
        )
        with torch.no_grad():
            purified, untouched = (
                remover.purify(image, 1.0, torch.Generator()) for image in (cloak, photo)
            )
        errors.append([_mean_square(x, photo) for x in (cloak, purified, untouched)])
    before, after, harm = torch.tensor(errors).mean(dim=0).sqrt().tolist()
    return Removal(before=before, after=after, harm=harm)


def _mean_square(found: Tensor, photo: Tensor) -> float:
    return (255.0 * (found - photo)).square().mean().item()


def main(words: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clean", type=Path, required=True, help="photos never trained on")
    parser.add_argument("--cloaked", type=Path, required=True, help="folder of their cloaks")
    parser.add_argument("--remover", default=EMBEDDED, help="'embedded' or a weights file")
    arguments = parser.parse_args(words)
    pairs = load_pairs(arguments.clean, arguments.cloaked)
    remover = LearnedRemover(LearnedRemover.Config(path=arguments.remover))
    found = measure(remover, pairs)
    print("| photos | residual before | residual after | energy removed | change of clean photos |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| {len(pairs)} | {found.before:.2f} | {found.after:.2f} | {found.energy_removed:.0%} | "
        f"{found.harm:.2f} |"
    )
    print(f"\nRoot mean squares in grey levels at {DEFAULT_WORK_PX} px.")


if __name__ == "__main__":
    main()
