"""Steady frames: where the photo did not change, a frame shows part of what the frame before it showed.

Each frame is translated by itself; noise of the sensor then flips tokens, which flickers. What is shown is therefore a running
mean over the frames, place by place, as long as the photo stays what it was. The photo is averaged in the same way: a slow change
adds up against it, and is let through before it smears.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tokenizers.tokens import PHOTO_MEANS

TOLERANCE = 0.02  # difference of two photos, of 1, up to which they are taken as the same: that of a noisy sensor


@dataclass(frozen=True)
class Frame:
    """What is kept of a frame for the next: h x w content tokens, u target tokens a side for each."""

    photo: Tensor  # (3, PHOTO_MEANS h, PHOTO_MEANS w), mean colours in [0, 1]
    grid: Tensor  # (u h, u w)
    mixture: Tensor | None  # (u h, u w, D_tok)


def unchanged(before: Tensor, now: Tensor) -> Tensor:
    """How far two photos (3, 2h, 2w) are the same, at and around each of the h x w tokens: 1 is the same, 0 is not."""
    difference = F.avg_pool2d((now - before).square().mean(0)[None, None], PHOTO_MEANS)  # (1, 1, h, w)
    return torch.exp(-F.max_pool2d(difference, 3, 1, 1)[0, 0] / TOLERANCE**2)


def steadied(now: Frame, before: Frame, steady: float) -> Frame:
    """The frame with a share of the one before: `steady` where the photo is the same, nothing where it is not.

    Without mixtures a token cannot be blended: the one before stays where its share is above a half.
    """
    share = steady * unchanged(before.photo, now.photo)  # (h, w)
    parts, upscale = (spread(share, side.shape[-1] // share.shape[-1]) for side in (now.photo, now.grid))
    grid = torch.where(upscale > 0.5, before.grid, now.grid)
    mixture = None
    if now.mixture is not None and before.mixture is not None:
        mixture = torch.lerp(now.mixture, before.mixture, upscale[..., None].to(now.mixture.dtype))
    return Frame(torch.lerp(now.photo, before.photo, parts), grid, mixture)


def spread(x: Tensor, times: int) -> Tensor:
    """(h, w) -> (times h, times w), every value repeated."""
    return x.repeat_interleave(times, 0).repeat_interleave(times, 1)
