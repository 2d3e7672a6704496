"""The image encoder of the U-Net family: a small image tower in OpenCLIP's layout."""

from __future__ import annotations

from torch import Tensor

from anti_i2v_lit.surrogates.dynamicrafter.clip import ClipSettings, ImageEmbedder
from anti_i2v_lit.surrogates.embedded.family import PictureEncoder


class ClipPictureEncoder(PictureEncoder):
    """An image tower in training; the weights below ``embedder`` are what is shipped."""

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        self.embedder = ImageEmbedder(settings)
        # The layout holds ends of a text tower that nothing reads; they are not trained.
        for name, value in self.embedder.model.named_parameters():
            value.requires_grad_(name.startswith("visual."))

    def tokens(self, images: Tensor) -> Tensor:
        """Class token and patch tokens of the last block, not normalised, ``[B, 1 + N, W]``."""
        return self.embedder(images)

    def embed(self, images: Tensor) -> Tensor:
        """Projection of the mean of all tokens, ``[B, embed_dim]``.

        The U-Net reads all of them; so all are trained to tell people apart.
        """
        tower = self.embedder.model.visual
        return tower.ln_post(self.tokens(images)).mean(dim=1) @ tower.proj
