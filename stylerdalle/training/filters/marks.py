"""Marks: what a painter's tool leaves at every pixel (strokes, dots, panes, hatching), and how colours are laid in them.

A style's marks are drawn once, on a pattern: a square of PATTERN_SIDE pixels that repeats without a seam (patterns.py). A filter
gets the part of the pattern that lies under its picture.

Colours are float32 (3, H, W) in [0, 1], maps (H, W); H, W are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .operators import warp

PATTERN_SIDE = 512  # pixels, 64 tokens


@dataclass(frozen=True)
class Marks:
    """The marks at the pixels of a pattern, or of a picture that lies somewhere on it.

    Attributes:
        dy: (H, W), pixels from a pixel down to the middle of its mark; the mark takes its colour from there.
        dx: (H, W), the same to the right.
        light: (H, W), factor of brightness, of the mark and of its relief.
        tint: (3, H, W), what the mark adds to each channel.
        line: (H, W), 0 to 1, where a line or a gap covers the colour: lead, the ground between dots.
        more: other maps, for the filters that use them.
    """

    dy: Tensor
    dx: Tensor
    light: Tensor
    tint: Tensor
    line: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def at(self, place: tuple[int, int], shape: tuple[int, int]) -> Marks:
        """The part of a pattern that lies under a picture of `shape` (H, W) whose top left pixel is at `place` (y, x)."""
        rows, columns = ((torch.arange(n) + p) % PATTERN_SIDE for p, n in zip(place, shape, strict=True))

        def cut(x: Tensor) -> Tensor:
            return x[..., rows, :][..., columns]

        more = {name: cut(x) for name, x in self.more.items()}
        return Marks(cut(self.dy), cut(self.dx), cut(self.light), cut(self.tint), cut(self.line), more)


def plain(shape: tuple[int, int] = (PATTERN_SIDE, PATTERN_SIDE)) -> Marks:
    """No marks at all, for a picture of `shape` (H, W)."""
    zero = torch.zeros(shape)
    return Marks(zero, zero, torch.ones(shape), zero.expand(3, -1, -1), zero)


def guide(marks: Marks) -> Tensor:
    """The marks on a plain middle grey, (3, H, W): what the style's texture is encoded from. `more["guide"]` replaces it."""
    if "guide" in marks.more:
        return marks.more["guide"]
    return ((0.5 + marks.tint) * marks.light).clamp(0, 1) * (1 - marks.line)


def lay(colours: Tensor, marks: Marks, tolerance: float) -> Tensor:
    """Colours (3, H, W) laid in marks -> (3, H, W).

    A mark has the colour at its middle. A pixel whose own colour differs from that by more than `tolerance` (summed over
    channels) keeps its own, so that contours stay.
    """
    there = warp(colours, marks.dy, marks.dx)
    near = (there - colours).abs().sum(0) < tolerance
    return ((torch.where(near, there, colours) + marks.tint) * marks.light).clamp(0, 1)
