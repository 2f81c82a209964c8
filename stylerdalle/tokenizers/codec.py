"""Pictures of any size to content tokens and back, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.resample import resized_part, taps, weighted
from ..images.tiling import tiles
from ..progress import Progress
from .protocol import ImageTokenizer
from .tokens import PHOTO_MEANS, Tokens

TILE = 64  # tokens a side that the tokenizer does at once
WHOLE = 1 << 20  # tokens a side of a tokenizer that does any size by itself
LARGEST = 16384  # px a side that a detail above 1 may lead to


def encode(
    tokenizer: ImageTokenizer,
    images: Tensor,
    alpha: Tensor | None = None,
    upscale: int = 1,
    device: torch.device | None = None,
    progress: Progress | None = None,
    detail: float = 1.0,
) -> Tokens:
    """Pictures of any size to content tokens.

    Args:
        images: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1], carried along.
        upscale: of the translator the tokens are for: 2 reads the pictures at half size.
        device: the tokenizer's, where tiles go one at a time; where the pictures are if not given.
        progress: called with (tiles done, tiles in all), a small picture being one tile; may raise to cancel.
        detail: 2 reads the pictures at twice their size, which makes marks half as large; 0.5 at half of it.

    Raises:
        ValueError: detail is not a positive number, or makes a side longer than LARGEST.
    """
    size = read_size(images.shape[-2:], detail, upscale)
    unit, (tile, halo) = tokenizer.downsample, in_parts(tokenizer)
    h, w = (-(-side // unit) for side in size)
    margin = halo * unit
    boxes = tiles(h * unit, w * unit, tile * unit, margin)
    grid = torch.empty(len(images), h, w, dtype=torch.long, device=images.device)
    photo = images.new_empty(len(images), 3, PHOTO_MEANS * h, PHOTO_MEANS * w, dtype=torch.float32) if len(images) > 1 else None
    with torch.inference_mode():
        for i, picture in enumerate(images.split(1)):
            for k, (top, bottom, left, right) in enumerate(boxes):
                y, x = max(0, top - margin), max(0, left - margin)
                rows, columns = (y, min(h * unit, bottom + margin)), (x, min(w * unit, right + margin))
                part = resized_part(picture, size, rows, columns, device)
                inner = part[..., top - y : bottom - y, left - x : right - x]
                first, last, west, east = (side // unit for side in (top, bottom, left, right))  # in tokens
                y, x = y // unit, x // unit
                grid[i, first:last, west:east] = tokenizer.encode(part)[0, first - y : last - y, west - x : east - x]
                if photo is not None:
                    means = F.avg_pool2d(inner, unit // PHOTO_MEANS)[0]
                    photo[i, :, PHOTO_MEANS * first : PHOTO_MEANS * last, PHOTO_MEANS * west : PHOTO_MEANS * east] = means
                if progress:
                    progress(i * len(boxes) + k + 1, len(images) * len(boxes))
    height, width = images.shape[-2:]
    return Tokens(grid, height, width, tokenizer.vocab_size, alpha, upscale, detail=detail, photo=photo)


def in_parts(tokenizer: ImageTokenizer) -> tuple[int, int]:
    """(tokens a side that the tokenizer does at once, tokens read on each side beyond)."""
    return (TILE, tokenizer.halo) if tokenizer.halo is not None else (WHOLE, 0)


def read_size(picture: Sequence[int], detail: float, scale: int) -> tuple[int, int]:
    """(height, width) in px that a picture is read at, for a detail and the px of it that a px stands for."""
    if not 0 < detail < math.inf:
        raise ValueError(f"detail {detail} is not possible: 1 is the picture's own size, 2 twice it")
    height, width = (max(1, round(side * detail)) for side in picture)
    if detail > 1 and max(height, width) > LARGEST:
        raise ValueError(
            f"a {picture[1]} x {picture[0]} px picture at detail {detail:g} is worked on at {width} x {height} px: "
            f"at most {LARGEST} px a side are possible, choose a lower detail"
        )
    return -(-height // scale), -(-width // scale)


def decode(
    tokenizer: ImageTokenizer, tokens: Tokens, device: torch.device | None = None, progress: Progress | None = None
) -> Tensor:
    """Tokens to pictures, float32 (B, 3, H, W) in [0, 1], or (B, 4, H, W) where they carry an alpha.

    Args:
        device: where the pictures are put, tile by tile; the tokens' if not given.
        progress: called with (tiles done, tiles in all), a small picture being one tile; may raise to cancel.
    """
    if tokens.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokens are of a vocabulary of {tokens.vocab_size}, this tokenizer has {tokenizer.vocab_size}: "
            "decode with the tokenizer that encoded"
        )
    home = next(tokenizer.parameters()).device
    unit, (side, halo) = tokenizer.downsample, in_parts(tokenizer)
    height, width = tokens.height, tokens.width
    shown = read_size((height, width), tokens.detail, tokens.scale)  # px that the tokens stand for
    tile, margin = (max(1, round(n * unit * tokens.scale / tokens.detail)) for n in (side, halo))
    boxes = tiles(height, width, tile, margin)
    count, channels = len(tokens.grid), 3 if tokens.alpha is None else 4
    # as ComfyUI's IMAGE lies in memory, and picture files do
    images = torch.empty(count, channels, height, width, device=device or tokens.grid.device, memory_format=torch.channels_last)
    with torch.inference_mode():
        for i in range(count):
            if tokens.alpha is not None:
                images[i, 3:] = tokens.alpha[i].clamp(0, 1)
            for k, (top, bottom, left, right) in enumerate(boxes):
                y0, y1, down = taps(shown[0], height, top, bottom)
                x0, x1, across = taps(shown[1], width, left, right)
                y, x = max(0, y0 // unit - halo), max(0, x0 // unit - halo)
                part = (slice(i, i + 1), slice(y, -(-y1 // unit) + halo), slice(x, -(-x1 // unit) + halo))
                if tokens.mixture is None:
                    image = tokenizer.decode(tokens.grid[part].to(home))
                else:
                    image = tokenizer.decode_mixture(tokens.mixture[part].to(home).permute(0, 3, 1, 2))  # (1, D_tok, h, w)
                image = image[..., y0 - y * unit : y1 - y * unit, x0 - x * unit : x1 - x * unit]
                images[i, :3, top:bottom, left:right] = weighted(image, down, across)[0]
                if progress:
                    progress(i * len(boxes) + k + 1, count * len(boxes))
    return images
