"""What is finer than a token, or goes across tokens: the photo's lines, and marks that leave the token grid.

A token stands for 8 x 8 px, so eyes, windows and contours are lost before a style is painted. Painters draw them, under the paint
or over it. Here the photo's luma is smoothed where it is plain and kept where it has edges (a guided filter whose guide is the
photo, He et al. 2013, doi 10.1109/TPAMI.2012.213). What of that is finer than a token is added: lines and small forms, no grain.

Where the photo has no lines, marks have the straight sides and the regular places of tokens. There the picture is bent by a few
pixels, smoothly and at random, as by a hand that is not a machine's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import LINES
from .colour import LUMA_601, beside, luma, window_mean
from .tiling import tiles

FINE = 4  # px around a place whose luma is smoothed together
EPS = 0.01  # variance of luma in there below which it counts as plain
COARSE = 8  # px, of the means that are taken away, twice
BLOCK = 4  # px: these means are taken of blocks, the others of blocks of 2 px, for speed
BEND, CLEAR = 3.0, 0.012  # px by which marks move, a deviation; strength of lines around a place that halves it
SPACING = 20  # px between independent moves
FARTHEST = 10  # px
HALO = 2 * COARSE + 3 * BLOCK + FARTHEST + 2  # px around a place that its colour depends on, whole blocks
TILE = 1000  # px, whole blocks


def add_lines(
    images: Tensor, photos: Tensor, amount: float = LINES, where: Tensor | None = None, seed: int | None = None
) -> Tensor:
    """Add to stylised pictures, in place, the lines of their photos, and bend their marks where the photos have none.

    Args:
        images: (B, 3 or 4, H, W) in [0, 1]; an alpha channel stays.
        photos: as in `colour.beside`.
        amount: 0 leaves the pictures unchanged, 1 gives lines as strong as the photos'. From LINES on marks are bent fully.
        where: (B or 1, H, W) in [0, 1], multiplies amount place by place; None: 1 everywhere.
        seed: of the bends, which are those of no other seed; None: marks are not bent, as in frames, where they should stay.

    Returns:
        `images`.

    Raises:
        ValueError: amount is out of range, or the pictures are no multiple of the photos.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"lines {amount} is out of range: 0 (the style alone) to 1 (lines as strong as the photo's)")
    if amount == 0:
        return images
    height, width = images.shape[-2:]
    moves = None
    if seed is not None:
        moves = min(1.0, amount / LINES) * random_moves(height, width, torch.Generator().manual_seed(seed)).to(images)
    boxes = tiles(height, width, TILE, HALO)
    for i, (picture, photo) in enumerate(beside(images, photos)):
        source = picture if moves is None or len(boxes) == 1 else picture.clone()  # a tile reads what lies around it
        for top, bottom, left, right in boxes:
            y, x = max(0, top - HALO), max(0, left - HALO)
            around = (..., slice(y, bottom + HALO), slice(x, right + HALO))
            added = lines(photo[around])
            share = 1.0 if where is None else where[i % len(where)][around].to(added)
            part = source[around]
            if moves is not None:
                part = bent_where_plain(part, added, share, moved(moves, y, x, (part.shape[-2], part.shape[-1])))
            out = part + amount * share * added
            picture[..., top:bottom, left:right] = out[..., top - y : bottom - y, left - x : right - x].clamp(0, 1)
    return images


def with_lines(images: Tensor, photos: Tensor, amount: float = LINES, moves: Tensor | None = None) -> Tensor:
    """What `add_lines` makes of small pictures, as new ones that are not clamped: differentiable, for training.

    Args:
        images: (B, 3, H, W).
        photos: the same shape.
        moves: (B or 1, 2, rows, columns), from `random_moves`; None: marks are not bent.
    """
    added = lines(photos)
    if moves is not None:
        size = (images.shape[-2], images.shape[-1])
        images = bent_where_plain(images, added, min(1.0, amount / LINES), moved(moves, 0, 0, size))
    return images + amount * added


def lines(photos: Tensor) -> Tensor:
    """Photos (B, 3, H, W) in [0, 1] -> what is added to each channel for their lines, (B, 1, H, W), about -0.5 to 0.5."""
    height, width = photos.shape[-2:]
    light = F.pad(luma(photos, LUMA_601), (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    half = F.avg_pool2d(torch.cat([light, light.square()], 1), 2)
    level, squares = window_mean(half, FINE // 2).split(1, 1)
    variance = squares - level.square()
    slope = variance / (variance + EPS)
    fit = enlarged(window_mean(torch.cat([slope, level - slope * level], 1), FINE // 2), 2)
    blocks = F.avg_pool2d(light, BLOCK)
    coarse = window_mean(window_mean(blocks, COARSE // BLOCK), COARSE // BLOCK)
    found = fit[:, :1] * light + fit[:, 1:] - enlarged(coarse, BLOCK)
    return found[..., :height, :width]


def enlarged(x: Tensor, times: int) -> Tensor:
    """(B, C, h, w) -> (B, C, times * h, times * w), smoothly."""
    return F.interpolate(x, scale_factor=times, mode="bilinear")


def strength(added: Tensor) -> Tensor:
    """Lines (B, 1, H, W) -> how strong they are around each place, of the same shape."""
    height, width = added.shape[-2:]
    blocks = F.avg_pool2d(F.pad(added.abs(), (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate"), BLOCK)
    return enlarged(window_mean(blocks, COARSE // BLOCK), BLOCK)[..., :height, :width]


def random_moves(height: int, width: int, generator: torch.Generator) -> Tensor:
    """How far the marks at every SPACING px move down and across, (1, 2, rows, columns), with two rows more on each side."""
    size = (1, 2, height // SPACING + 5, width // SPACING + 5)
    found = BEND * torch.randn(size, generator=generator)
    return found.clamp(-FARTHEST, FARTHEST)


def moved(moves: Tensor, y: int, x: int, size: tuple[int, int]) -> Tensor:
    """The moves at every pixel of a part of the picture that begins at (y, x): (B, 2, *size)."""
    (row, up), (column, left) = divmod(y, SPACING), divmod(x, SPACING)
    rows, columns = ((length + rest) // SPACING + 5 for length, rest in zip(size, (up, left), strict=True))
    part = F.interpolate(moves[..., row : row + rows, column : column + columns], scale_factor=SPACING, mode="bicubic")
    up, left = up + 2 * SPACING, left + 2 * SPACING
    return part[..., up : up + size[0], left : left + size[1]]


def bent_where_plain(images: Tensor, added: Tensor, share: Tensor | float, moves: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) bent by a share of `moves` (B, 2, H, W), less where there are lines `added` (B, 1, H, W)."""
    return bent(images, share / (1 + (strength(added) / CLEAR).square()) * moves)


def bent(images: Tensor, moves: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) whose places come from `moves` (B, 2, H, W) px below and to the right; edges go on outwards."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device)[:, None] + moves[:, 0]
    columns = torch.arange(width, device=images.device) + moves[:, 1]
    places = torch.stack([2 * columns / max(1, width - 1) - 1, 2 * rows / max(1, height - 1) - 1], -1)
    smooth = "bilinear" if images.device.type == "mps" else "bicubic"  # which torch lacks on Apple's GPUs
    found = F.grid_sample(images.contiguous(), places, mode=smooth, padding_mode="border", align_corners=True)
    return torch.where((moves == 0).all(1, keepdim=True), images, found)  # exactly
