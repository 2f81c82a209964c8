"""Parts of large pictures for networks that cannot take them whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def starts(length: int, window: int, overlap: int) -> list[int]:
    """First positions of windows that cover `length`, about evenly spaced, neighbours sharing at least `overlap`."""
    if length <= window:
        return [0]
    count = -(-(length - window) // (window - overlap)) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def tiles(height: int, width: int, tile: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Parts of a picture, (top, bottom, left, right), of at most `tile` a side; one, where no part would need more than all."""
    if height <= tile + 2 * margin and width <= tile + 2 * margin:
        return [(0, height, 0, width)]
    return [
        (top, min(height, top + tile), left, min(width, left + tile))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]


def blended(function: Callable[[Tensor], Tensor], x: Tensor, unit: int, tile: int, overlap: int, scale: float) -> Tensor:
    """function(x) of a network that sees its whole input (attention, group norms), in tiles that fade into each other.

    A tile is not exactly its part of the whole, so the step between two is spread: of `overlap`, the quarter at a tile's edge,
    where padding is felt, has no weight, and the middle half is faded linearly.

    Args:
        function: (B, C, H, W) -> (B, C', scale*H, scale*W).
        unit: tiles begin at multiples of it (8 for an encoder's pixels, 1 for tokens); it divides tile, overlap and the sides.
        tile: side of a tile at most; x is one piece where it is no larger.
        overlap: input places that neighbours share, or a little more.
        scale: output size over input size.
    """
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
    """The fewest tiles that cover `length` for `blended`, made as small as that allows: (input places, output places, weights
    of the output places). The weights of all tiles at a place sum to 1."""
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
