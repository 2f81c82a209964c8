"""Steady frames of a video: where the photo did not change, a frame keeps a share of the frame before it.

Each frame is translated by itself. The sensor's noise then flips tokens, which flickers. A running mean over the frames, place by
place, suppresses this wherever the photo stays the same. The photo is averaged in the same way: a slow change accumulates against
the averaged photo and passes through before it smears.

Letters: h x w content tokens, u the translator's upscale, D_tok numbers in an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tokenizers.tokens import PHOTO_MEANS

TOLERANCE = 0.02  # difference of two photos in [0, 1] up to which they count as the same, about a sensor's noise


@dataclass(frozen=True)
class Frame:
    """What is kept of a frame for the next one."""

    photo: Tensor  # (3, PHOTO_MEANS h, PHOTO_MEANS w), mean colours in [0, 1]
    grid: Tensor  # (u h, u w)
    mixture: Tensor | None  # (u h, u w, D_tok)


class History:
    """The frames of a video so far, as far as the next one needs them."""

    def __init__(self, steady: float):
        self.steady = steady
        self.before: Frame | None = None

    def next(self, now: Frame) -> Frame:
        """The next frame, steadied."""
        same = self.before is not None and self.before.grid.shape == now.grid.shape
        self.before = steadied(now, self.before, self.steady) if self.before is not None and same else now
        return self.before


def unchanged(before: Tensor, now: Tensor) -> Tensor:
    """How similar two photos (3, PHOTO_MEANS h, PHOTO_MEANS w) are at and around each token: (h, w), 1 the same, 0 not."""
    difference = F.avg_pool2d((now - before).square().mean(0)[None, None], PHOTO_MEANS)  # (1, 1, h, w)
    return torch.exp(-F.max_pool2d(difference, 3, 1, 1)[0, 0] / TOLERANCE**2)


def steadied(now: Frame, before: Frame, steady: float) -> Frame:
    """The frame with a share of the one before: `steady` where the photo is the same, 0 where it changed.

    Tokens cannot be blended: the token before stays where its share is above a half. Mixtures are interpolated.
    """
    share = steady * unchanged(before.photo, now.photo)  # (h, w)
    photo_share, token_share = (spread(share, side.shape[-1] // share.shape[-1]) for side in (now.photo, now.grid))
    grid = torch.where(token_share > 0.5, before.grid, now.grid)
    mixture = None
    if now.mixture is not None and before.mixture is not None:
        mixture = torch.lerp(now.mixture, before.mixture, token_share[..., None].to(now.mixture.dtype))
    return Frame(torch.lerp(now.photo, before.photo, photo_share), grid, mixture)


def spread(x: Tensor, times: int) -> Tensor:
    """(h, w) -> (times h, times w), every value repeated."""
    return x.repeat_interleave(times, 0).repeat_interleave(times, 1)
