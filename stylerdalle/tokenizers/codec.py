"""Pictures of any size to content tokens and back, tile by tile.

A convolutional tokenizer reads each tile with a margin as wide as its receptive field (its `halo`), which is cut off again: the
result is that of the whole picture. One without a halo takes whole pictures and tiles them itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import Box, explained, in_halves
from ..images.alpha import without_hidden
from ..images.blocks import draw_blocks, square_of
from ..images.resample import resized_part, taps, weighted
from ..images.steady import Steady
from ..images.tiling import tiles
from ..progress import Progress
from .protocol import ImageTokenizer
from .tokens import PHOTO_MEANS, Tokens, check_tokenizer
from .weave import without_weave

TILE_TOKENS = 64  # side of a tile in tokens
LEAST_TILE = 8  # the same, where memory does not suffice for larger ones
EDGE = 3  # tokens by which a picture goes on beyond its edges
ANY_SIZE = 1 << 20  # the same for a tokenizer without a halo
LARGEST_SIDE = 16384  # px, of a picture at a detail above 1


@explained
def encode(
    tokenizer: ImageTokenizer,
    images: Tensor,
    alpha: Tensor | None = None,
    upscale: int = 1,
    device: torch.device | None = None,
    progress: Progress | None = None,
    detail: float = 1.0,
    video: bool = False,
) -> Tokens:
    """Pictures of any size to content tokens.

    Args:
        images: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1], kept with the tokens; colours under alpha 0 are not read.
        upscale: of the translator that the tokens are for; 2 reads the pictures at half size.
        device: to which tiles are moved one at a time; the tokenizer's own by default.
        progress: called with (tiles done, tiles in all); may raise to cancel.
        detail: 2 reads the pictures at twice their size, which halves the size of a style's marks; 0.5 at half their size.
        video: keep what frames are compared by even of one picture. Of several it is always kept.

    Returns:
        Tokens with a grid of (B, h, w) on the images' device.

    Raises:
        ValueError: detail is not positive, or makes a side longer than LARGEST_SIDE.
        OutOfMemory: memory does not suffice for tiles of LEAST_TILE.
    """
    size = read_size(images.shape[-2:], detail, upscale)
    unit, (side, halo) = tokenizer.downsample, tile_and_halo(tokenizer)
    home = device or next(tokenizer.parameters()).device
    h, w = (-(-length // unit) for length in size)
    boxes, means = tiles(h, w, side, halo), PHOTO_MEANS  # boxes in tokens
    grid = torch.empty(len(images), h, w, dtype=torch.long, device=images.device)
    kept = len(images) > 1 or video
    photo = images.new_empty(len(images), 3, means * h, means * w, dtype=torch.float16) if kept else None
    with torch.inference_mode():
        for i, picture in enumerate(images.split(1)):
            if alpha is not None:
                picture = without_hidden(picture.float(), alpha[i : i + 1].to(picture.device, torch.float32))

            def read(box: Box, i: int = i, picture: Tensor = picture) -> None:
                top, bottom, left, right = box
                y, x = max(0, top - halo), max(0, left - halo)  # where the tile with its margin begins
                rows, columns = (unit * y, unit * min(h, bottom + halo)), (unit * x, unit * min(w, right + halo))
                part = resized_part(picture, size, rows, columns, home)
                grid[i, top:bottom, left:right] = tokenizer.encode(part)[0, top - y : bottom - y, left - x : right - x]
                if photo is not None:
                    inner = part[..., unit * (top - y) : unit * (bottom - y), unit * (left - x) : unit * (right - x)]
                    colours = F.avg_pool2d(inner, unit // means)[0]
                    photo[i, :, means * top : means * bottom, means * left : means * right] = colours

            for k, box in enumerate(boxes):
                in_halves(read, box, LEAST_TILE if halo else ANY_SIZE)
                if progress:
                    progress(i * len(boxes) + k + 1, len(images) * len(boxes))
    height, width = images.shape[-2:]
    identity = tokenizer.sha256
    return Tokens(grid, height, width, tokenizer.vocab_size, alpha, upscale, detail=detail, photo=photo, tokenizer=identity)


@explained
def decode(
    tokenizer: ImageTokenizer,
    tokens: Tokens,
    device: torch.device | None = None,
    progress: Progress | None = None,
    history: Steady | None = None,
) -> Tensor:
    """Tokens to pictures at their own size.

    Args:
        device: of the result, to which tiles are moved one at a time; the tokens' device by default.
        progress: called with (tiles done, tiles in all); may raise to cancel.
        history: of the frames before, if these go on with their video; for tokens that say how steady they are to be.

    Returns:
        float32 (B, 3, H, W) in [0, 1], or (B, 4, H, W) for tokens with an alpha.

    Raises:
        ValueError: the tokens are of another tokenizer.
        OutOfMemory: as `encode`.
    """
    check_tokenizer(tokens, tokenizer.sha256, tokenizer.vocab_size)
    home, unit, (side, halo) = next(tokenizer.parameters()).device, tokenizer.downsample, tile_and_halo(tokenizer)
    halo += bool(halo)  # what takes the weave out sees less than a token more
    height, width = tokens.height, tokens.width
    shown = read_size((height, width), tokens.detail, tokens.scale)  # px of the decoded tokens, then resized
    tile, margin = (max(1, round(n * unit * tokens.scale / tokens.detail)) for n in (side, halo))
    boxes = tiles(height, width, tile, margin)  # in px of the result
    least = LEAST_TILE * unit if halo else ANY_SIZE * unit
    count, channels = len(tokens.grid), 3 if tokens.alpha is None else 4
    # channels_last, as ComfyUI's IMAGE and picture files have it in memory
    images = torch.empty(count, channels, height, width, device=device or tokens.grid.device, memory_format=torch.channels_last)
    with torch.inference_mode():
        for i in range(count):
            if tokens.steady and (history is None or (i and i % tokens.frames == 0)):
                history = Steady(tokens.steady, PHOTO_MEANS)
            if tokens.alpha is not None:
                images[i, 3:] = tokens.alpha[i].clamp(0, 1)

            def paint(box: Box, i: int = i) -> None:
                top, bottom, left, right = box
                images[i, :3, top:bottom, left:right] = decoded_part(tokenizer, tokens, i, box, shown, halo)

            for k, box in enumerate(boxes):
                in_halves(paint, box, least)
                if progress:
                    progress(i * len(boxes) + k + 1, count * len(boxes))
            if tokens.blocks is not None:
                draw_blocks(images[i, :3], tokens.blocks[i], square(tokens, unit))
            if tokens.steady and tokens.photo is not None and history is not None:
                covered = (unit * tokens.grid.shape[1] * height // shown[0], unit * tokens.grid.shape[2] * width // shown[1])
                images[i, :3] = history.next(tokens.photo[i].to(home), images[i, :3].to(home), covered)
    return images


def free_of_blocks(tokens: Tokens, unit: int) -> Tensor | None:
    """Where lines of the photo belong into decoded pictures, (B, H, W) in [0, 1]: not on flat squares. None: everywhere.

    Args:
        unit: px of a token, the tokenizer's `downsample`.
    """
    if tokens.blocks is None:
        return None
    side = square(tokens, unit)
    rows, columns = (
        square_of(length, side, count)
        for length, count in zip((tokens.height, tokens.width), tokens.blocks.shape[1:], strict=True)
    )
    return 1 - tokens.blocks[:, rows][..., columns]


def square(tokens: Tokens, unit: int) -> float:
    """Px of the result that a token's place is long."""
    return unit * tokens.height / read_size((tokens.height, tokens.width), tokens.detail, tokens.scale)[0]


def decoded_part(tokenizer: ImageTokenizer, tokens: Tokens, i: int, box: Box, shown: tuple[int, int], halo: int) -> Tensor:
    """One box of picture i in px of the result, (3, bottom - top, right - left).

    Args:
        shown: height and width of the decoded tokens, px; the result is resized from them.
        halo: tokens around the box that are decoded with it, and cut off.
    """
    home, unit, edge = next(tokenizer.parameters()).device, tokenizer.downsample, min(EDGE, halo)
    top, bottom, left, right = box
    y0, y1, down = taps(shown[0], tokens.height, top, bottom)  # px of the decoded tokens that the box needs
    x0, x1, across = taps(shown[1], tokens.width, left, right)
    y, x = max(-edge, y0 // unit - halo), max(-edge, x0 // unit - halo)  # in tokens
    rows = (y, min(tokens.grid.shape[1] + edge, -(-y1 // unit) + halo))
    columns = (x, min(tokens.grid.shape[2] + edge, -(-x1 // unit) + halo))
    if tokens.mixture is None:
        image = tokenizer.decode(beyond(tokens.grid[i : i + 1], rows, columns).to(home))
    else:
        mixture = beyond(tokens.mixture[i : i + 1], rows, columns).to(home)
        image = without_weave(tokenizer.decode_mixture(mixture.permute(0, 3, 1, 2)))
    image = image[..., y0 - y * unit : y1 - y * unit, x0 - x * unit : x1 - x * unit]  # without the margin
    return weighted(image, down, across)[0]


def beyond(grid: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """The places of (B, h, w, ...) in the given rows and columns. Those outside of the grid are like the nearest inside.

    A decoder pads with zeros: at the edge of a picture they would show as lines.
    """
    for dim, (first, last) in ((1, rows), (2, columns)):
        places = torch.arange(first, last, device=grid.device).clamp(0, grid.shape[dim] - 1)
        grid = grid.index_select(dim, places)
    return grid


def tile_and_halo(tokenizer: ImageTokenizer) -> tuple[int, int]:
    """(side of a tile, margin on each side of it), in tokens."""
    return (TILE_TOKENS, tokenizer.halo) if tokenizer.halo is not None else (ANY_SIZE, 0)


def read_size(picture: Sequence[int], detail: float, scale: int) -> tuple[int, int]:
    """(height, width) in px that a picture (height, width) is read at: detail times its size, divided by scale.

    Raises:
        ValueError: detail is not positive, or makes a side longer than LARGEST_SIDE.
    """
    if not 0 < detail < math.inf:
        raise ValueError(f"detail {detail} is not possible: 1 is the picture's own size, 2 twice it")
    height, width = (max(1, round(side * detail)) for side in picture)
    if detail > 1 and max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"a {picture[1]} x {picture[0]} px picture at detail {detail:g} is worked on at {width} x {height} px: "
            f"at most {LARGEST_SIDE} px a side are possible, choose a lower detail"
        )
    return -(-height // scale), -(-width // scale)
