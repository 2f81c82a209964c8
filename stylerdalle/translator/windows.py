"""Translate a token grid of any size, at little more memory than its own: overlapping windows, in bands from top to bottom.

The translator reads windows of its native grid. They overlap, and the logits of a place are averaged with weights that fall to
the window's edge, so that no seam shows. As soon as no later window reaches a row, its tokens are chosen and its logits are
dropped.

Letters: B pictures of h x w content tokens; n is the side of a window, u the translator's upscale, V the vocabulary; b windows
are run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..device import in_batches
from ..images.tiling import starts
from ..progress import Progress

PLACES = 2048  # whose tokens are chosen at once

Model = Callable[[Tensor, Tensor, Tensor], Tensor]
Choose = Callable[[Tensor], tuple[Tensor, ...]]


def translate_grid(
    model: Model,
    source: Tensor,
    shares: Tensor,
    choose: Choose,
    grid: int,
    upscale: int = 1,
    overlap: int | None = None,
    batch: int = 16,
    progress: Progress | None = None,
    out: Sequence[Tensor] = (),
) -> Sequence[Tensor]:
    """Translate a token grid of any size.

    Args:
        model: (windows of source (b, n*n, ...), windows of shares (b, n*n, ...), places where they begin (b, 2), (y, x)) ->
            logits (b, (u*n)^2, V).
        source: (B, h, w, ...), the content tokens.
        shares: (B, h, w, ...), handed to the model window by window.
        choose: logits (N, V) -> what is kept of them, (N, ...) each; called on a few whole rows at a time, from top to bottom.
        grid: n.
        upscale: u.
        overlap: source tokens that neighbouring windows share; a quarter of n by default.
        batch: windows run at once; fewer where memory does not suffice.
        progress: called with (windows done, windows in all), sometimes with the same numbers again; may raise to cancel.
        out: tensors to be filled with what is kept; new ones by default.

    Returns:
        What is kept, (B, u*h, u*w, ...) each.

    Raises:
        ValueError: overlap is out of range.
        OutOfMemory: memory does not suffice for one window.
    """
    (b, h, w), n, u = source.shape[:3], grid, upscale
    overlap = n // 4 if overlap is None else overlap
    if not 0 <= overlap < n:
        raise ValueError(f"overlap {overlap} is out of range: 0 to {n - 1} for windows of {n} tokens")
    source, shares = padded(source, n), padded(shares, n)
    tops, lefts = (starts(side, n, overlap) for side in source.shape[1:3])
    at = torch.tensor([(top, left) for top in tops for left in lefts], device=source.device)  # made once: it waits for the device
    report = counter(b * len(at), progress)
    for i in range(b):
        band = Band(u * n, u * source.shape[2], source.device)
        for row, (top, below) in enumerate(pairwise([*tops, tops[-1] + n])):

            def add(some: Sequence[int], i: int = i, top: int = top, first: int = row * len(lefts), band: Band = band) -> None:
                columns, places = [lefts[k] for k in some], at[first + some[0] :][: len(some)]
                logits = model(cut(source[i], top, columns, n), cut(shares[i], top, columns, n), places)
                band.add(logits.float(), [u * left for left in columns])
                report(len(some))

            batch = in_batches(add, range(len(lefts)), batch)
            for y, mean in band.take(u * (below - top)):
                kept = choose(mean.flatten(0, 1))
                out = out or [values.new_empty(b, u * h, u * w, *values.shape[1:]) for values in kept]
                fill(out, kept, i, y + u * top, mean.shape[:2], (u * h, u * w))
                report(0)
    return out


def counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    """A function that adds to what is done and tells `progress`."""
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)

    return report


def fill(
    out: Sequence[Tensor], kept: Sequence[Tensor], picture: int, y: int, shape: Sequence[int], size: tuple[int, int]
) -> None:
    """Put what is kept of some rows, (rows * width, ...) each for `shape` (rows, width), where it belongs in `out`.

    Args:
        y: of the first row.
        size: (height, width) of the result: padding beyond it is left out.
    """
    for whole, values in zip(out, kept, strict=True):
        rows = values.unflatten(0, tuple(shape))[: max(0, size[0] - y), : size[1]]
        whole[picture, y : y + len(rows)] = rows


def padded(x: Tensor, n: int) -> Tensor:
    """(B, h, w, ...) -> (B, max(h, n), max(w, n), ...), the last row and column repeated."""
    for dim in (1, 2):
        side = x.shape[dim]
        if side < n:
            x = x.index_select(dim, torch.arange(n, device=x.device).clamp(max=side - 1))
    return x


def cut(x: Tensor, top: int, lefts: Sequence[int], n: int) -> Tensor:
    """The windows of (h, w, ...) that begin in row `top` at these columns: (b, n*n, ...)."""
    return torch.stack([x[top : top + n, left : left + n].flatten(0, 1) for left in lefts])


def falloff(side: int) -> Tensor:
    """(side, side) weights: 1 in the middle, falling linearly to the edges, nowhere zero."""
    x = torch.arange(side) + 0.5
    ramp = torch.minimum(x, side - x) / (side / 2)
    return ramp[:, None] * ramp[None]


class Band:
    """The rows of target tokens that one row of windows covers: weighted sums of their logits.

    Args:
        side: of a window, u*n.
        width: of the band.
    """

    def __init__(self, side: int, width: int, device: torch.device):
        self.side, self.width = side, width
        self.weight = falloff(side).to(device)
        self.sums = torch.empty(0)  # (side, width, V + 1) once V is known; the last channel sums the weights

    def add(self, logits: Tensor, lefts: Sequence[int]) -> None:
        """Add windows (b, side*side, V) that begin at these columns."""
        windows = logits.unflatten(1, (self.side, self.side))  # (b, side, side, V)
        if not len(self.sums):
            self.sums = windows.new_zeros(self.side, self.width, windows.shape[-1] + 1)
        for window, left in zip(windows, lefts, strict=True):
            place = self.sums[:, left : left + self.side]
            place[..., :-1] += window * self.weight[..., None]
            place[..., -1] += self.weight

    def take(self, count: int) -> Iterator[tuple[int, Tensor]]:
        """The mean logits of the first `count` rows, about PLACES places at a time, as (first row, (rows, width, V)).

        Afterwards these rows are gone and the others have moved up.
        """
        step = max(1, PLACES // self.width)
        for first in range(0, count, step):
            part = self.sums[first : min(count, first + step)]
            yield first, part[..., :-1] / part[..., -1:]
        rest = self.sums[count:].clone()
        self.sums[: len(rest)] = rest
        self.sums[len(rest) :] = 0
