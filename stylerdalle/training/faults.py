"""Losses against faults that critics forgive: marks in places that real works leave calm, marks that repeat, wrong colours.

Letters: B pictures of H x W px, in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.colour import LUMA_601, luma

CELL = 16  # px, side of a place
PLAIN = 0.02  # deviation of the luma in a place of a photo that is plain: sky, wall, water
CALM = 0.35  # share of a style's places that are its calm ones
TOKEN = 8  # px
BESIDE = (5, 6, 10, 11)  # px: marks that repeat after a token are more alike there than after these
WIDE = 0.5  # cosine of the angle between hues that is free: 60 degrees
SLOW = 33  # px, of the mean that is subtracted first


def restlessness(images: Tensor) -> Tensor:
    """The deviation of the luma within each place: (B, 3, H, W) -> (B, H // CELL, W // CELL)."""
    grey = luma(images.float(), LUMA_601)
    mean = F.avg_pool2d(grey, CELL)
    variance = F.avg_pool2d(grey.square(), CELL) - mean.square()
    return (variance.clamp(min=0) + 1e-5).sqrt()[:, 0]


def calm(images: Tensor) -> Tensor:
    """How restless the calm places of a style's real works (B, 3, H, W) are at most, a scalar."""
    return restlessness(images).flatten().quantile(CALM)


def plain_places(photos: Tensor) -> Tensor:
    """Where photos (B, 3, H, W) are plain: 1 or 0, (B, H // CELL, W // CELL)."""
    return (restlessness(photos) < PLAIN).float()


def calm_loss(images: Tensor, plain: Tensor, limits: Tensor) -> Tensor:
    """How much more restless pictures are than their style's calm places, where their photos are plain, (B,); 0: not more.

    Args:
        plain: (B, H // CELL, W // CELL), of `plain_places`.
        limits: (B,), of `calm`.
    """
    limit = limits[:, None, None]
    more = F.relu(restlessness(images) - limit) / (limit + PLAIN)
    return (plain * more).sum((1, 2)) / (plain.sum((1, 2)) + 8)  # few plain places count less


def repetition_loss(images: Tensor, plain: Tensor) -> Tensor:
    """How much more alike pictures of one style are to themselves moved by a token than moved by a little less or more.

    The autocorrelation of the luma without its slow parts, along both axes, summed over the plain places of the pictures,
    since elsewhere the photo decides: a scalar, 0 where nothing repeats.

    Args:
        plain: (B, H // CELL, W // CELL), of `plain_places`.
    """
    grey = luma(images.float(), LUMA_601)
    grey = grey - F.avg_pool2d(F.pad(grey, (SLOW // 2,) * 4, mode="reflect"), SLOW, 1)
    grey = grey * F.interpolate(plain[:, None], grey.shape[-2:], mode="bilinear")
    power = grey.square().mean() + 1e-5
    excess = []
    for x in (grey, grey.transpose(-1, -2)):
        alike = {lag: (x[..., lag:] * x[..., :-lag]).mean() / power for lag in (TOKEN, *BESIDE)}
        excess.append(F.relu(alike[TOKEN] - torch.stack([alike[lag] for lag in BESIDE]).mean()))
    return torch.stack(excess).sum()


def hue_loss(images: Tensor, photos: Tensor) -> Tensor:
    """How far the hues of places are from those of their photos (B, 3, H, W), beyond a wide angle, (B,): 0 to 1.5.

    Grey places of a photo may have any colour.
    """
    made, wanted = (chroma(F.avg_pool2d(x.float(), CELL)) for x in (images, photos))
    length = wanted.square().sum(1).add(1e-6).sqrt()  # (B, h, w)
    alike = (made * wanted).sum(1) / (length * made.square().sum(1).add(1e-4).sqrt())
    weight = length.clamp(max=0.2)
    return (weight * F.relu(WIDE - alike)).sum((1, 2)) / (weight.sum((1, 2)) + 0.02 * weight[0].numel())


def chroma(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> red and blue less the luma, (B, 2, H, W)."""
    return torch.stack([images[:, 0], images[:, 2]], 1) - luma(images, LUMA_601)
