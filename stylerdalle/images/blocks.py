"""Pixel art: places of a picture as flat squares in few colours.

A decoder makes no hard edges. In styles that say so (`Style.blocks`) the square of each token takes its mean colour, in a palette
of a few colours as on old screens: Pillow's median cut, and three rounds of k-means.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

COLOURS = 24  # of a palette
STRIP = 64  # rows of squares that are drawn at a time


def draw_blocks(picture: Tensor, shares: Tensor, side: float) -> None:
    """Draw squares into a picture (3, H, W) in [0, 1], in place.

    Args:
        shares: (h, w) in [0, 1], how much of each square is flat; where it is 0 the picture stays.
        side: of a square, px; a fraction gives squares of two sizes.
    """
    if not shares.any():
        return
    (h, w), (height, width) = shares.shape, picture.shape[-2:]
    shares = shares.to(picture)
    rows, columns = (square_of(length, side, count).to(picture.device) for length, count in ((height, h), (width, w)))
    colours = in_palette(square_means(picture, rows, columns, (h, w)), shares > 0)
    for some in torch.arange(height, device=picture.device).split(max(1, int(STRIP * side))):
        flat, share = (of_squares[..., rows[some], :][..., columns] for of_squares in (colours, shares))
        picture[:, some] = picture[:, some].lerp(flat, share)


def square_of(length: int, side: float, count: int) -> Tensor:
    """Of each of `length` px in a row, the number of its square among `count` of `side` px: long (length)."""
    return (torch.arange(length) / side).long().clamp(max=count - 1)


def square_means(picture: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean colours (3, h, w) of a picture (3, H, W), whose rows and columns are of the squares `rows` (H) and `columns` (W);
    squares without a pixel are black."""
    h, w = size
    lines = picture.new_zeros(3, h, picture.shape[-1]).index_add_(1, rows, picture)
    sums = picture.new_zeros(3, h, w).index_add_(2, columns, lines)
    counts = torch.bincount(rows, minlength=h)[:, None] * torch.bincount(columns, minlength=w)
    return sums / counts.clamp(min=1)


def in_palette(colours: Tensor, used: Tensor, count: int = COLOURS) -> Tensor:
    """Colours (3, h, w) in [0, 1], those that are `used` (h, w) replaced by the nearest of `count` that suit them."""
    some = (255 * colours[:, used]).round().clamp(0, 255).byte().T.cpu().numpy()  # (N, 3)
    shown = Image.fromarray(np.ascontiguousarray(some[None]))
    few = shown.quantize(count, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE).convert("RGB")
    made = colours.clone()
    made[:, used] = torch.from_numpy(np.array(few)[0]).T.to(colours) / 255
    return made
