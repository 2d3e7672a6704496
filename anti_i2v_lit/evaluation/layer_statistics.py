"""Numbers that say how semantic a layer's features are, and its principal components as colours.

Tokens are centred and scaled by `comparable_tokens` before they are compared: residual streams
differ in size by orders of magnitude between blocks, and a token's position is written into it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Share of the mean variance added to every direction of the within-class covariance.
_SHRINKAGE = 0.1
# Shares of the values that become black and white in a picture of components.
_DARK, _BRIGHT = 0.02, 0.98


def token_grid(num_tokens: int, latent_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(frames, rows, columns) of a layer's tokens, which run frame by frame and row by row.

    Args:
        num_tokens: N of the layer.
        latent_shape: (F, h, w) of the clip's latents; layers may join two frames, and a power of
            two of rows and columns.

    Raises:
        ValueError: no such grid has this many tokens.
    """
    frames, rows, columns = latent_shape
    for temporal in (1, 2):
        for stride in (1, 2, 4, 8, 16, 32):
            grid = (-(-frames // temporal), -(-rows // stride), -(-columns // stride))
            if grid[0] * grid[1] * grid[2] == num_tokens:
                return grid
    raise ValueError(
        f"{num_tokens} tokens do not form a grid over latents of {latent_shape}; expected every "
        "video token once, frame by frame and row by row"
    )


def comparable_tokens(tokens: Tensor, used: Tensor) -> Tensor:
    """Layer-normalised tokens, less the mean over views at each position, in unit variance.

    What is left tells views apart; position embeddings, which every block carries, are gone.
    Give only views that may know of each other: the mean ties them together.

    Args:
        tokens: [V, P, D], V views of P positions.
        used: [V, P] bool: tokens that show some of the photo; the others become 0.
    """
    weight = used[..., None].float()
    tokens = F.layer_norm(tokens.float(), tokens.shape[-1:])
    tokens = tokens - (weight * tokens).sum(dim=0) / weight.sum(dim=0).clamp_min(1.0)
    variance = (weight * tokens.square()).sum(dim=(0, 1)) / weight.sum().clamp_min(1.0)
    return weight * tokens / variance.sqrt().clamp_min(1e-6)


def roc_area(positives: Tensor, negatives: Tensor) -> float:
    """Probability that a positive value exceeds a negative one, ties counted half.

    Args:
        positives: [M].
        negatives: [N].

    Raises:
        ValueError: one of them is empty.
    """
    if not len(positives) or not len(negatives):
        raise ValueError(
            f"expected values of both kinds, got {len(positives)} positive and {len(negatives)} "
            "negative ones"
        )
    ordered = negatives.double().sort().values
    below = torch.searchsorted(ordered, positives.double(), right=False)
    not_above = torch.searchsorted(ordered, positives.double(), right=True)
    return float((below + not_above).double().mean() / (2 * len(negatives)))


def separation(tokens: Tensor, labels: Tensor, used: Tensor, folds: Tensor) -> float:
    """Area under the ROC curve of one direction that tells labelled tokens from the others.

    Fisher's linear discriminant, fitted on all folds but one and judged on that one; the mean
    over folds. 0.5 is chance. Each side is centred by itself: a mean over both would make the
    judged tokens mirror the fitted ones.

    Args:
        tokens: [V, P, D], as the model gave them.
        labels: [V, P] bool: inside the face.
        used: [V, P] bool: tokens that show some of the photo.
        folds: [V] integers; views of one photo share a fold.

    Raises:
        ValueError: no fold and its rest hold both kinds of tokens.
    """
    areas = []
    for fold in folds.unique().tolist():
        held = folds == fold
        sides = []
        for chosen in (~held, held):
            values = comparable_tokens(tokens[chosen], used[chosen])
            inside, outside = labels[chosen] & used[chosen], ~labels[chosen] & used[chosen]
            sides.append((values[inside], values[outside]))
        if min(len(kind) for side in sides for kind in side) == 0:
            continue
        direction = _discriminant(*sides[0])
        areas.append(roc_area(sides[1][0] @ direction, sides[1][1] @ direction))
    if not areas:
        raise ValueError(
            "face and background cannot be told apart: expected photos with a face and some "
            "background around it, in at least two folds"
        )
    return sum(areas) / len(areas)


def _discriminant(inside: Tensor, outside: Tensor) -> Tensor:
    centred = torch.cat([inside - inside.mean(dim=0), outside - outside.mean(dim=0)])
    covariance = centred.T @ centred / len(centred)
    ridge = _SHRINKAGE * covariance.diagonal().mean().clamp_min(1e-12)
    covariance = covariance + ridge * torch.eye(len(covariance), device=covariance.device)
    return torch.linalg.solve(covariance, inside.mean(dim=0) - outside.mean(dim=0))


def discrimination(descriptors: Tensor, owners: Tensor) -> float:
    """Probability that two views of one person are nearer than views of two people.

    Args:
        descriptors: [V, D], one per view.
        owners: [V] integers, the person of each view.

    Raises:
        ValueError: fewer than two people, or nobody with two views.
    """
    unit = F.normalize(descriptors.float(), dim=-1)
    distance = 1.0 - unit @ unit.T
    first, second = torch.triu_indices(len(owners), len(owners), offset=1)
    same = owners[first] == owners[second]
    pairs = distance[first, second]
    return roc_area(pairs[~same], pairs[same])


def departure(tokens: Tensor, shallow: Tensor) -> float:
    """1 minus linear CKA (Kornblith et al., ICML 2019, eq. 5): 0 for the shallow block itself.

    Args:
        tokens: [V, P, D].
        shallow: [V, P, E], the same views and positions.
    """
    x, y = (part.flatten(0, 1).float() for part in (tokens, shallow))
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    shared = (y.T @ x).square().sum()
    scale = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    return float(1.0 - shared / scale.clamp_min(1e-20))


def components_as_colours(tokens: Tensor) -> Tensor:
    """First three principal components of one view's tokens as red, green and blue.

    Args:
        tokens: [rows, columns, D].

    Returns:
        [3, rows, columns] in [0, 1]; each component stretched over its own range, with the sign
        that makes its largest loading positive, so that two runs give one picture.
    """
    rows, columns, width = tokens.shape
    flat = F.layer_norm(tokens.reshape(-1, width).float(), (width,))
    flat = flat - flat.mean(dim=0)
    _, _, loadings = torch.linalg.svd(flat, full_matrices=False)
    loadings = loadings[:3]
    strongest = loadings.abs().argmax(dim=1, keepdim=True)
    values = flat @ (loadings * loadings.gather(1, strongest).sign()).T
    low, high = values.quantile(_DARK, dim=0), values.quantile(_BRIGHT, dim=0)
    scaled = ((values - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    missing = 3 - scaled.shape[1]
    return F.pad(scaled, (0, missing)).T.reshape(3, rows, columns)
