"""Any picture size at constant memory: windows over the token grid for the translator, tiles for the tokenizer.

The translator sees windows of its native grid that overlap; the logits of each place are averaged with weights that fall
to the window's edge, so no seam shows. The grid is done in bands from top to bottom: as soon as no later window touches
a row, its tokens are chosen and its logits dropped. Tiles of a convolutional tokenizer have a margin as wide as its
receptive field: the result equals that of the whole picture. Those of a tokenizer that sees its whole input fade into each
other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def starts(length: int, window: int, overlap: int, snap: int = 1) -> list[int]:
    """First positions of windows that cover `length`, about evenly spaced, neighbours sharing at least `overlap`.

    Positions are multiples of `snap`, as window - overlap and, beyond one window, length - window must be.
    """
    if length <= window:
        return [0]
    count = -(-(length - window) // (window - overlap)) + 1
    return [snap * round(i * (length - window) / (count - 1) / snap) for i in range(count)]


def falloff(side: int) -> Tensor:
    """(side, side) weights: 1 in the middle, falling linearly to the edges, nowhere zero."""
    x = torch.arange(side) + 0.5
    ramp = torch.minimum(x, side - x) / (side / 2)
    return ramp[:, None] * ramp[None]


def translate_grid(
    model: Callable[[Tensor, Tensor], Tensor],
    source: Tensor,
    strength: Tensor,
    choose: Callable[[Tensor], tuple[Tensor, ...]],
    grid: int,
    upscale: int = 1,
    overlap: int | None = None,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, ...]:
    """Translate a token grid of any size.

    Args:
        model: (b, n*n, ...) parts of source and (b, n*n, ...) of strength in windows -> (b, (u*n)^2, V) logits.
        source: (B, h, w, ...), the content tokens, or anything else that belongs to their places.
        strength: (B, h, w, ...), handed to the model window by window.
        choose: logits (N, V) -> what to keep of them, (N, ...) each; called on whole rows from top to bottom.
        grid: n, the model's native side.
        upscale: u.
        overlap: source tokens that neighbouring windows share, default a quarter of n.
        batch: windows run at once.
        progress: called with (windows done, windows in all); may raise to cancel.

    Returns:
        What choose kept, (B, u*h, u*w, ...) each.
    """
    b, h, w = source.shape[:3]
    n, u = grid, upscale
    overlap = n // 4 if overlap is None else overlap
    if not 0 <= overlap < n:
        raise ValueError(f"overlap {overlap} is out of range: 0 to {n - 1} for windows of {n} tokens")
    # windows begin at multiples of a quarter window: marks that a style repeats at that pitch then agree where windows overlap
    snap = n // 4 if n % 4 == 0 and overlap % (n // 4) == 0 else 1
    pad_h, pad_w = (max(0, n - side) if side < n else -side % snap for side in (h, w))
    if pad_h or pad_w:  # repeat the last row and column
        rows, columns = (torch.arange(s + p).clamp(max=s - 1) for s, p in ((h, pad_h), (w, pad_w)))
        source, strength = source[:, rows][:, :, columns], strength[:, rows][:, :, columns]
    tops, lefts = starts(h + pad_h, n, overlap, snap), starts(w + pad_w, n, overlap, snap)
    weight = falloff(u * n).to(source.device)
    out = []
    done, total = 0, b * len(tops) * len(lefts)
    for i in range(b):
        band: Tensor | None = None  # (rows, u*w, V + 1): logit sums and weights of rows not yet chosen
        first = 0  # the row of the target grid where the band begins
        chosen: list[tuple[Tensor, ...]] = []
        for t, top in enumerate(tops):
            for k in range(0, len(lefts), batch):
                some = lefts[k : k + batch]
                windows = torch.stack([source[i, top : top + n, x : x + n].flatten(0, 1) for x in some])
                strengths = torch.stack([strength[i, top : top + n, x : x + n].flatten(0, 1) for x in some])
                parts = model(windows, strengths).float().unflatten(1, (u * n, u * n))  # (b, un, un, V)
                if band is None:
                    band = parts.new_zeros(0, u * (w + pad_w), parts.shape[-1] + 1)
                if k == 0:
                    band = torch.cat([band, band.new_zeros(u * (top + n) - first - len(band), *band.shape[1:])])
                for logits, left in zip(parts, some, strict=True):
                    place = band[u * top - first :, u * left : u * (left + n)]
                    place[..., :-1] += logits * weight[..., None]
                    place[..., -1] += weight
                done += len(some)
                if progress:
                    progress(done, total)
            assert band is not None
            end = u * tops[t + 1] if t + 1 < len(tops) else first + len(band)
            ready = band[: end - first]  # no later window reaches these rows
            mean = ready[..., :-1] / ready[..., -1:]
            chosen.append(tuple(kept.unflatten(0, mean.shape[:2]) for kept in choose(mean.flatten(0, 1))))
            band, first = band[end - first :].clone(), end
        out.append([torch.cat(rows) for rows in zip(*chosen, strict=True)])
    return tuple(torch.stack(kept)[:, : u * h, : u * w] for kept in zip(*out, strict=True))


def tiled(function: Callable[[Tensor], Tensor], x: Tensor, unit: int, margin: int, tile: int, scale: float) -> Tensor:
    """function(x) of a convolutional network, computed tile by tile; equal to one call where margin covers its reach.

    Args:
        function: (B, C, H, W) or (B, H, W) -> (..., scale*H, scale*W).
        unit: tiles begin at multiples of it (8 for an encoder's pixels, 1 for tokens).
        margin: input places read on each side beyond the tile, a multiple of unit.
        tile: side of a tile, a multiple of unit.
        scale: output size over input size.
    """
    h, w = x.shape[-2:]
    if h <= tile + 2 * margin and w <= tile + 2 * margin:
        return function(x)
    if tile % unit or margin % unit:
        raise ValueError(f"tile {tile} and margin {margin} must be multiples of {unit}")
    rows = []
    for top in range(0, h, tile):
        y0, y1 = max(0, top - margin), min(h, top + tile + margin)
        row = []
        for left in range(0, w, tile):
            x0, x1 = max(0, left - margin), min(w, left + tile + margin)
            part = function(x[..., y0:y1, x0:x1])
            keep_y = slice(round((top - y0) * scale), round((min(h, top + tile) - y0) * scale))
            keep_x = slice(round((left - x0) * scale), round((min(w, left + tile) - x0) * scale))
            row.append(part[..., keep_y, keep_x].clone())
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


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
    for first in starts(length, size, overlap, unit):
        x = torch.arange(round(size * scale)) + 0.5
        quarter = overlap * scale / 4
        rise = ((x - quarter) / (2 * quarter)).clamp(0, 1) if first else torch.ones_like(x)
        fall = ((len(x) - x - quarter) / (2 * quarter)).clamp(0, 1) if first + size < length else torch.ones_like(x)
        out = slice(round(first * scale), round(first * scale) + len(x))
        tiles.append((slice(first, first + size), out, rise.minimum(fall)))
        total[out] += tiles[-1][2]
    return [(places, out, weight / total[out]) for places, out, weight in tiles]


def pad_to_multiple(images: Tensor, unit: int) -> Tensor:
    """(B, C, H, W) -> sides rounded up to multiples of `unit`, the last row and column repeated."""
    h, w = images.shape[-2:]
    return F.pad(images, (0, -w % unit, 0, -h % unit), mode="replicate") if h % unit or w % unit else images
