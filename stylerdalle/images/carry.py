"""Pictures that move with a video: what is painted once stays where it is on the things in the picture.

A picture that is warped from frame to frame gets blurred, because each warp averages neighbouring pixels. Here it moves in whole
pixels, and the rest of the way, up to half a pixel, is kept beside it until it adds up to a whole one. Only what is shown is
resampled, once, however many frames have passed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .flow import inside, sampled


@dataclass(frozen=True)
class Carried:
    """A picture on its way. What it shows are its pixels at (x, y) + rest."""

    pixels: Tensor  # (1, C, H, W)
    rest: Tensor  # (1, 2, H, W), (x, y) in px, each -0.5 to 0.5
    known: Tensor  # (1, 1, H, W), 0 where the picture does not reach because it came in from beyond the edges, else 1

    @classmethod
    def new(cls, picture: Tensor) -> Carried:
        """A picture (1, C, H, W) that has not moved yet."""
        return cls(picture, torch.zeros_like(picture[:, :1]).repeat(1, 2, 1, 1), torch.ones_like(picture[:, :1]))

    def moved(self, flow: Tensor) -> Carried:
        """The picture after a flow (1, 2, H, W), as from `flow_between`."""
        way = flow + fetched(self.rest, flow.round().long())
        whole = way.round()
        known = fetched(self.known, whole.long()) * inside(way)
        return Carried(fetched(self.pixels, whole.long()), way - whole, known)

    def shown(self) -> Tensor:
        """What is to be seen: (1, C, H, W)."""
        return sampled(self.pixels, self.rest, "bicubic") if self.rest.any() else self.pixels

    def mended(self, picture: Tensor, keep: Tensor) -> Carried:
        """The picture where `keep`, bool (1, 1, H, W), is true, and another one (1, C, H, W) elsewhere."""
        return Carried(torch.where(keep, self.pixels, picture), self.rest * keep, self.known)


def fetched(picture: Tensor, whole: Tensor) -> Tensor:
    """The pixels of (1, C, H, W) at (x, y) + whole, long (1, 2, H, W); beyond its edges like the nearest pixel inside."""
    height, width = picture.shape[-2:]
    y, x = (
        torch.arange(height, device=whole.device)[:, None] + whole[0, 1],
        torch.arange(width, device=whole.device) + whole[0, 0],
    )
    places = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return picture.flatten(2)[..., places.flatten()].unflatten(-1, (height, width))
