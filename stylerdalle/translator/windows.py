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

from ..images.tiling import starts

PLACES = 2048  # whose tokens are chosen at once


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
