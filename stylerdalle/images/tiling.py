"""Tiles and windows: parts of large pictures for networks that cannot read them whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..device import OutOfMemory, explanation, fits


def starts(length: int, window: int, overlap: int) -> list[int]:
    """First places of the fewest windows that cover `length`, about evenly spaced; neighbours share `overlap` places or more."""
    if length <= window:
        return [0]
    count = -(-(length - window) // (window - overlap)) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def tiles(height: int, width: int, tile: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Tiles that cover a picture, (top, bottom, left, right), of at most `tile` a side.

    They are to be read with `margin` more on each side. A picture no larger than one tile with its margins is one tile.
    """
    if height <= tile + 2 * margin and width <= tile + 2 * margin:
        return [(0, height, 0, width)]
    return [
        (top, min(height, top + tile), left, min(width, left + tile))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]


def blended(function: Callable[[Tensor], Tensor], x: Tensor, unit: int, tile: int, overlap: int, scale: float) -> Tensor:
    """function(x) in overlapping tiles that are blended, for a network whose outputs depend on all of its input.

    Attention and group norms make a tile's output differ a little from its part of the whole. Neighbouring tiles are therefore
    blended: of their overlap, the quarter at a tile's edge, where padding matters, has no weight, and the middle half is a linear
    ramp.

    Args:
        function: (B, C, H, W) -> (B, C', scale*H, scale*W).
        x: (B, C, H, W).
        unit: tiles begin at multiples of it (8 for an encoder's pixels, 1 for tokens); it divides tile, overlap, H and W.
        tile: largest side of a tile; an x that is no larger is one tile. Where memory does not suffice, it is halved, down to
            twice the overlap.
        overlap: input places that neighbouring tiles share, at least.
        scale: output size over input size.

    Returns:
        (B, C', scale*H, scale*W).

    Raises:
        OutOfMemory: memory does not suffice for the smallest tiles.
    """
    found: list[Tensor] = []
    while not fits(lambda size: found.append(_blended(function, x, unit, size, overlap, scale)), tile):
        if tile // 2 < 2 * overlap or tile // 2 % unit:
            raise OutOfMemory(explanation())
        tile //= 2
    return found[0]


def _blended(function: Callable[[Tensor], Tensor], x: Tensor, unit: int, tile: int, overlap: int, scale: float) -> Tensor:
    h, w = x.shape[-2:]
    if max(h, w) <= tile:
        return function(x)
    out: Tensor | None = None
    for rows, rows_out, down in faded(h, unit, tile, overlap, scale):
        for columns, columns_out, across in faded(w, unit, tile, overlap, scale):
            part = function(x[..., rows, columns]).float()
            if out is None:
                out = part.new_zeros(*part.shape[:2], round(h * scale), round(w * scale))
            out[..., rows_out, columns_out] += part * (down[:, None] * across).to(part.device)
    assert out is not None
    return out


def faded(length: int, unit: int, tile: int, overlap: int, scale: float) -> list[tuple[slice, slice, Tensor]]:
    """The fewest tiles that cover `length`, as small as possible, with the weights that `blended` uses.

    Returns:
        For each tile: its input places, its output places, and the weights of these. At each place, weights sum to 1.
    """
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    size = -(-(length + (count - 1) * overlap) // (count * unit)) * unit
    tiles, total = [], torch.zeros(round(length * scale))
    for step in starts(length // unit, size // unit, overlap // unit):
        first = unit * step
        x = torch.arange(round(size * scale)) + 0.5
        quarter = overlap * scale / 4
        rise = ((x - quarter) / (2 * quarter)).clamp(0, 1) if first else torch.ones_like(x)
        fall = ((len(x) - x - quarter) / (2 * quarter)).clamp(0, 1) if first + size < length else torch.ones_like(x)
        out = slice(round(first * scale), round(first * scale) + len(x))
        tiles.append((slice(first, first + size), out, rise.minimum(fall)))
        total[out] += tiles[-1][2]
    return [(places, out, weight / total[out]) for places, out, weight in tiles]
