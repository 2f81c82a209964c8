"""Parts of resized pictures, without resizing the whole: bicubic and antialiased, as torch's `interpolate(antialias=True)`.

A pixel of a line resized from `length` to `size` is a weighted mean of a few of its pixels (Keys 1981, a = -1/2, with a wider
kernel where the line shrinks). A part of the result needs only those.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)

# devices on which torch lacks antialiased resizing, or its gradient: MPS has bilinear since torch 2.7 and bicubic since 2.8
# (github.com/pytorch/pytorch/pull/145526, 149378), the gradient of bicubic came later (169785)
WITHOUT_ANTIALIAS = ("mps",)


def interpolated(images: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """`F.interpolate(images, size, mode, antialias=True)`; on the CPU for a device that cannot, and moved back.

    Args:
        images: (B, C, H, W).
        size: (height, width) in px.
        mode: bicubic or bilinear.
    """
    kind = images.device.type
    if kind not in WITHOUT_ANTIALIAS:
        return F.interpolate(images, size, mode=mode, antialias=True)
    tell_of_fallback(kind)
    return F.interpolate(images.cpu(), size, mode=mode, antialias=True).to(images.device)


@lru_cache
def tell_of_fallback(kind: str) -> None:
    log.warning("%s: pictures are resized on the CPU, torch cannot do it there with antialiasing", kind)


def taps(length: int, size: int, first: int, last: int) -> tuple[int, int, Tensor | None]:
    """The source pixels and weights of the pixels [first, last) of a line resized from `length` to `size`.

    Returns:
        (a, b, weights): source pixels [a, b) and their weights (last - first, b - a); the weights are None if size = length.
    """
    if length == size:
        return first, last, None
    step = length / size
    wide = max(1.0, step)
    centres = (torch.arange(first, last, dtype=torch.float64) + 0.5) * step
    a, b = max(0, math.floor(centres[0] - 2 * wide)), min(length, math.ceil(centres[-1] + 2 * wide))
    x = ((torch.arange(a, b) + 0.5 - centres[:, None]) / wide).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return a, b, (weights / weights.sum(1, keepdim=True)).float()


def weighted(x: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, h, w), by weights (h, H) of rows and (w, W) of columns from `taps`; None: unchanged."""
    if rows is None and columns is None:
        return x
    x = x if rows is None else rows.to(x.device) @ x
    x = x if columns is None else x @ columns.to(x.device).T
    return x.clamp(0, 1)


def resized_part(
    images: Tensor, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """A part of pictures resized to `size`, without resizing the whole.

    Args:
        images: (B, C, H, W) in [0, 1], of any float type.
        size: (height, width) in px of the whole result.
        rows, columns: [first, last) of the part; they may end beyond `size`: the last row and column are repeated.
        device: where the part is computed; the images' device by default.

    Returns:
        float32 (B, C, rows, columns).
    """
    y0, y1, down = taps(images.shape[-2], size[0], rows[0], min(rows[1], size[0]))
    x0, x1, across = taps(images.shape[-1], size[1], columns[0], min(columns[1], size[1]))
    part = images[..., y0:y1, x0:x1].to(device or images.device, torch.float32).clamp(0, 1)
    part = weighted(part, down, across)
    more = (0, max(0, columns[1] - size[1]), 0, max(0, rows[1] - size[0]))
    return F.pad(part, more, mode="replicate") if any(more) else part
