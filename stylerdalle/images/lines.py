"""The lines of a photo in its stylised picture: forms that are finer than a token.

A token stands for 8 x 8 px, so eyes, windows and contours are lost before a style is painted. Painters draw them, under the paint
or over it. Here the photo's luma is smoothed where it is plain and kept where it has edges (a guided filter whose guide is the
photo, He et al. 2013, doi 10.1109/TPAMI.2012.213). What of that is finer than a token is added: lines and small forms, no grain.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import LINES
from .colour import LUMA_601, luma
from .resample import interpolated
from .tiling import tiles

FINE = 4  # px around a place whose luma is smoothed together
EPS = 0.01  # variance of luma in there below which it counts as plain
COARSE = 8  # px, of the means that are taken away, twice
BLOCK = 4  # px: these means are taken of blocks, the others of blocks of 2 px, for speed
HALO = 2 * COARSE + 2 * BLOCK  # px around a place that its line depends on, whole blocks
TILE = 1024  # px


def add_lines(images: Tensor, photos: Tensor, amount: float = LINES, where: Tensor | None = None) -> Tensor:
    """Add to stylised pictures, in place, the lines of their photos.

    Args:
        images: (B, 3 or 4, H, W) in [0, 1]; an alpha channel stays.
        photos: (B, 3 or 4, h, w) in [0, 1], resized to the pictures' size; one for all pictures, or as many, or all of them again
            and again, as with several candidates.
        amount: 0 leaves the pictures unchanged, 1 gives lines as strong as the photos'.
        where: (B or 1, H, W) in [0, 1], multiplies amount place by place; None: 1 everywhere.

    Returns:
        `images`.

    Raises:
        ValueError: amount is out of range, or the pictures are no multiple of the photos.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"lines {amount} is out of range: 0 (the style alone) to 1 (lines as strong as the photo's)")
    if not len(photos) or len(images) % len(photos):
        raise ValueError(f"there are {len(photos)} photos for {len(images)} pictures: give one photo, or one for each picture")
    height, width = images.shape[-2:]
    for i, picture in enumerate(images[:, :3].split(1) if amount else ()):
        photo = photos[i % len(photos)][None, :3].to(picture)
        if photo.shape != picture.shape:
            photo = interpolated(photo, (height, width)).clamp(0, 1)
        for top, bottom, left, right in tiles(height, width, TILE, HALO):
            y, x = max(0, top - HALO), max(0, left - HALO)
            added = lines(photo[..., y : bottom + HALO, x : right + HALO])[..., top - y : bottom - y, left - x : right - x]
            if where is not None:
                added = added * where[i if len(where) > 1 else 0, top:bottom, left:right].to(added)
            picture[..., top:bottom, left:right].add_(added, alpha=amount).clamp_(0, 1)
    return images


def lines(photos: Tensor) -> Tensor:
    """Photos (B, 3, H, W) in [0, 1] -> what is added to each channel for their lines, (B, 1, H, W), about -0.5 to 0.5."""
    height, width = photos.shape[-2:]
    light = F.pad(luma(photos, LUMA_601), (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    half = F.avg_pool2d(torch.cat([light, light.square()], 1), 2)
    level, squares = mean(half, FINE // 2).split(1, 1)
    variance = squares - level.square()
    slope = variance / (variance + EPS)
    fit = enlarged(mean(torch.cat([slope, level - slope * level], 1), FINE // 2), 2)
    blocks = F.avg_pool2d(light, BLOCK)
    coarse = mean(mean(blocks, COARSE // BLOCK), COARSE // BLOCK)
    found = fit[:, :1] * light + fit[:, 1:] - enlarged(coarse, BLOCK)
    return found[..., :height, :width]


def mean(x: Tensor, around: int) -> Tensor:
    """The mean of the window around each place, (B, C, h, w) -> the same; beyond the edges the outermost values go on."""
    for dim in (-1, -2):
        padded = F.pad(x, (around, around, 0, 0) if dim == -1 else (0, 0, around, around), mode="replicate")
        parts = [padded.narrow(dim, k, x.shape[dim]) for k in range(2 * around + 1)]
        x = functools.reduce(torch.Tensor.add_, parts[1:], parts[0].clone()) / len(parts)
    return x


def enlarged(x: Tensor, times: int) -> Tensor:
    """(B, C, h, w) -> (B, C, times * h, times * w), smoothly."""
    return F.interpolate(x, scale_factor=times, mode="bilinear")
