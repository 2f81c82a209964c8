"""Masks of pictures: from pixels to the places of a token grid, and soft edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LINES = 256  # rows or columns blurred at once, because their sums are float64


def on_grid(masks: Tensor, grid: tuple[int, int], feather: float = 0.0, picture: tuple[int, int] | None = None) -> Tensor:
    """Masks at the places of a token grid: the mean of each place.

    Args:
        masks: (B, H, W), clamped to [0, 1]; of any size, they are stretched over the picture.
        grid: (h, w).
        feather: px of the picture over which edges become soft, to either side.
        picture: (height, width) in px, which feather refers to; the masks' own size by default.

    Returns:
        (B, h, w) in [0, 1].

    Raises:
        ValueError: feather is negative.
    """
    if feather < 0:
        raise ValueError(f"feather {feather} is not possible: give 0 px for hard edges, or more")
    height, width = picture or masks.shape[-2:]
    radii = round(feather * masks.shape[-2] / height), round(feather * masks.shape[-1] / width)
    soft = (feathered(mask.float().clamp(0, 1), *radii) for mask in masks.split(1))
    return torch.cat([F.interpolate(mask[:, None], grid, mode="area")[:, 0] for mask in soft])


def feathered(masks: Tensor, down: int, across: int) -> Tensor:
    """(B, H, W) -> the same, blurred: an edge becomes a smooth ramp of `down` rows or `across` columns to either side."""
    for radius in (across // 2, across - across // 2):  # two box filters in succession give a ramp without corners
        masks = _box(masks, radius)
    for radius in (down // 2, down - down // 2):
        masks = _box(masks.transpose(1, 2), radius).transpose(1, 2)
    return masks


def _box(x: Tensor, radius: int) -> Tensor:
    """Box filter along the last axis of (B, N, W): the mean of 2 radius + 1 places; the edge is repeated outwards."""
    if radius == 0:
        return x
    out = []
    for lines in x.split(LINES, 1):
        sums = F.pad(lines, (radius + 1, radius), mode="replicate").double().cumsum(-1)
        out.append(((sums[..., 2 * radius + 1 :] - sums[..., : -2 * radius - 1]) / (2 * radius + 1)).to(x.dtype))
    return torch.cat(out, 1)
