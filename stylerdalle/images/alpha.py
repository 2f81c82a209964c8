"""Transparent pictures: hidden colours, under alpha 0, must not bleed into the visible parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .resample import interpolated


def over_white(images: Tensor, alpha: Tensor | None) -> Tensor:
    """(B, 3, H, W) and alpha (B, 1, H, W) or None -> (B, 3, H, W), the pictures on a white background."""
    return images if alpha is None else images * alpha + (1 - alpha)


def resized_with_alpha(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 4, H, W) in [0, 1] -> (B, 4, *size), bicubic and antialiased, each colour weighted by its alpha."""
    alpha = images[:, 3:]
    both = interpolated(torch.cat([images[:, :3] * alpha, alpha], 1), size)
    return torch.cat([both[:, :3] / both[:, 3:].clamp(min=1e-4), both[:, 3:]], 1).clamp(0, 1)


def without_hidden(images: Tensor, alpha: Tensor) -> Tensor:
    """Pictures whose hidden colours, under alpha 0, are replaced by the visible colours around.

    Means over squares of 2, 4, 8, ... px, weighted by alpha, fill what is hidden, the smallest first (push-pull, Gortler et al.,
    The Lumigraph, 1996). A picture without a visible pixel becomes white.

    Args:
        images: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 3, H, W).
    """
    if not (alpha == 0).any():
        return images
    height, width = images.shape[-2:]
    if max(height, width) == 1:
        return torch.where(alpha > 0, images, torch.ones_like(images))
    pad = (0, width % 2, 0, height % 2)
    weighted, weights = (F.avg_pool2d(F.pad(x, pad), 2) for x in (images * alpha, alpha))
    means = without_hidden(weighted / weights.clamp(min=1e-6), weights)
    around = F.interpolate(means, scale_factor=2, mode="bilinear")[..., :height, :width]
    return torch.where(alpha > 0, images, around)
