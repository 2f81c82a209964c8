"""Any picture size at little more memory than its own: windows over the token grid for the translator, tiles for the tokenizer.

The translator sees windows of its native grid that overlap; the logits of each place are averaged with weights that fall
to the window's edge, so no seam shows. The grid is done in bands from top to bottom: as soon as no later window touches
a row, its tokens are chosen and its logits dropped. Tiles of a convolutional tokenizer are read with a margin as wide as
its receptive field: the result equals that of the whole picture. Those of a tokenizer that sees its whole input fade into
each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PLACES = 2048  # whose tokens are chosen at once


def starts(length: int, window: int, overlap: int) -> list[int]:
    """First positions of windows that cover `length`, about evenly spaced, neighbours sharing at least `overlap`."""
    if length <= window:
        return [0]
    count = -(-(length - window) // (window - overlap)) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def falloff(side: int) -> Tensor:
    """(side, side) weights: 1 in the middle, falling linearly to the edges, nowhere zero."""
    x = torch.arange(side) + 0.5
    ramp = torch.minimum(x, side - x) / (side / 2)
    return ramp[:, None] * ramp[None]


def translate_grid(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    source: Tensor,
    strength: Tensor,
    choose: Callable[[Tensor], tuple[Tensor, ...]],
    grid: int,
    upscale: int = 1,
    overlap: int | None = None,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
    out: Sequence[Tensor] = (),
) -> Sequence[Tensor]:
    """Translate a token grid of any size.

    Args:
        model: (b, n*n, ...) parts of source and (b, n*n, ...) of strength in windows, and (b, 2) where these begin, (y, x) ->
            (b, (u*n)^2, V) logits.
        source: (B, h, w, ...), the content tokens, or anything else that belongs to their places.
        strength: (B, h, w, ...), handed to the model window by window.
        choose: logits (N, V) -> what to keep of them, (N, ...) each; called on a few whole rows at a time, from top to bottom.
        grid: n, the model's native side.
        upscale: u.
        overlap: source tokens that neighbouring windows share, default a quarter of n.
        batch: windows run at once.
        progress: called with (windows done, windows in all), now and then with the same again; may raise to cancel.
        out: tensors for what choose kept; made where not given.

    Returns:
        What choose kept, (B, u*h, u*w, ...) each.
    """
    b, h, w = source.shape[:3]
    n, u = grid, upscale
    overlap = n // 4 if overlap is None else overlap
    if not 0 <= overlap < n:
        raise ValueError(f"overlap {overlap} is out of range: 0 to {n - 1} for windows of {n} tokens")
    pad_h, pad_w = (max(0, n - side) for side in (h, w))
    if pad_h or pad_w:  # repeat the last row and column
        rows, columns = (torch.arange(s + p).clamp(max=s - 1) for s, p in ((h, pad_h), (w, pad_w)))
        source, strength = source[:, rows][:, :, columns], strength[:, rows][:, :, columns]
    tops, lefts = (starts(side + pad, n, overlap) for side, pad in ((h, pad_h), (w, pad_w)))
    weight = falloff(u * n).to(source.device)
    done, total = 0, b * len(tops) * len(lefts)
    for i in range(b):
        band = torch.empty(0)  # (u*n, u*w, V + 1): logit sums and weights of the rows that a row of windows covers
        for t, top in enumerate(tops):
            for k in range(0, len(lefts), batch):
                some = lefts[k : k + batch]
                windows = torch.stack([source[i, top : top + n, x : x + n].flatten(0, 1) for x in some])
                strengths = torch.stack([strength[i, top : top + n, x : x + n].flatten(0, 1) for x in some])
                places = torch.tensor([(top, x) for x in some], device=source.device)
                parts = model(windows, strengths, places).float().unflatten(1, (u * n, u * n))  # (b, un, un, V)
                if not len(band):
                    band = parts.new_zeros(u * n, u * (w + pad_w), parts.shape[-1] + 1)
                for logits, left in zip(parts, some, strict=True):
                    place = band[:, u * left : u * (left + n)]
                    place[..., :-1] += logits * weight[..., None]
                    place[..., -1] += weight
                done += len(some)
                if progress:
                    progress(done, total)
            ready = u * (tops[t + 1] - top if t + 1 < len(tops) else n)  # rows that no later window reaches
            step = max(1, PLACES // band.shape[1])
            for first in range(0, ready, step):
                part = band[first : min(ready, first + step)]
                kept = choose((part[..., :-1] / part[..., -1:]).flatten(0, 1))
                out = out or [values.new_empty(b, u * h, u * w, *values.shape[1:]) for values in kept]
                y = u * top + first
                for whole, values in zip(out, kept, strict=True):
                    rows = values.unflatten(0, part.shape[:2])[: max(0, u * h - y), : u * w]  # without what was padded
                    whole[i, y : y + len(rows)] = rows
                if progress:
                    progress(done, total)
            rest = band[ready:].clone()
            band[: len(rest)] = rest
            band[len(rest) :] = 0
    return out


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
