"""Train a remover on photos and their cloaks, as anybody with the tool could.

    python -m anti_i2v_lit.purifications.train_remover --clean DIR --cloaked DIR --out FILE

Pairs are files of one name (a cloak may carry ".png" after it). The same command takes an
interrupted training up again from `FILE.work/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from anti_i2v_lit.purifications.fitting import TimedTraining, fit
from anti_i2v_lit.purifications.remover import RemoverNet
from anti_i2v_lit.purifications.training_photos import load_pixels, picture_files, random_patch

_SIDE_PX = 48
_BATCH = 8
# Pairs are seen at sizes around that of the packaged video models, where the remover will work.
_WORK_PX = 128
_LARGEST_ENLARGEMENT = 1.5

Pair = tuple[Tensor, Tensor]


def load_pairs(clean: Path, cloaked: Path) -> list[Pair]:
    """Photos and their cloaks, [3, H, W] uint8 each, of one size per pair.

    Raises:
        ValueError: no pair, or a pair of two sizes.
    """
    photos, cloaks = picture_files(clean), picture_files(cloaked)
    pairs = []
    for key, path in photos.items():
        partner = cloaks.get(key) or cloaks.get(f"{key}.png")
        if partner is None:
            continue
        pair = load_pixels(path), load_pixels(partner)
        if pair[0].shape != pair[1].shape:
            raise ValueError(f"{key}: photo and cloak differ in size; pair files of one run")
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"no file of {cloaked} has the name of one in {clean}")
    return pairs


class RemoverTraining(TimedTraining):
    """Predicts the residual by mean squared error on patches of pairs.

    A photo and its cloak are both shown, so that the network learns to leave photos alone.

    Args:
        pairs: see `load_pairs`.
        minutes: training time over all runs.
        seed: of everything drawn.
    """

    def __init__(self, pairs: Sequence[Pair], *, minutes: float, seed: int = 0) -> None:
        torch.manual_seed(seed)  # of the network's first weights
        super().__init__(
            RemoverNet(), minutes=minutes, learning_rate=1e-3, average_decay=0.995, seed=seed
        )
        self.pairs = list(pairs)

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean squared error of the residual, in squared grey levels."""
        chosen = torch.randint(len(self.pairs), (_BATCH,), generator=generator).tolist()
        patches = torch.stack([self._patch(self.pairs[i], generator) for i in chosen])
        photo, cloak = patches.to(self.device).unbind(dim=1)
        wanted = 255.0 * (cloak - photo)
        found = 255.0 * self.network(torch.cat((cloak, photo))).float()
        return (found - torch.cat((wanted, torch.zeros_like(wanted)))).square().mean()

    @staticmethod
    def _patch(pair: Pair, generator: torch.Generator) -> Tensor:
        shorter = min(pair[0].shape[-2:])
        smallest = min(1.0, _WORK_PX / shorter)
        largest = min(1.0, smallest * _LARGEST_ENLARGEMENT)
        return random_patch(pair, _SIDE_PX, smallest, generator, largest_scale=largest)


def main(words: Sequence[str] | None = None) -> None:
    """Train, then write the weights in half precision."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clean", type=Path, required=True, help="folder of photos")
    parser.add_argument("--cloaked", type=Path, required=True, help="folder of their cloaks")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--minutes", type=float, default=10.0, help="time over all runs")
    arguments = parser.parse_args(words)
    pairs = load_pairs(arguments.clean, arguments.cloaked)
    module = RemoverTraining(pairs, minutes=arguments.minutes)
    fit(module, arguments.out.with_name(f"{arguments.out.name}.work"))
    state = {name: value.half() for name, value in module.result().state_dict().items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, arguments.out)
    spent = module.seconds_spent / 60
    print(f"{len(pairs)} pairs, {module.global_step} steps, {spent:.1f} min -> {arguments.out}")


if __name__ == "__main__":
    main()
