"""The pack's socket types and what travels on them.

TOKENIZER, TRANSLATOR and REWARD all carry the `Bundle` that Load opened: a tokenizer must know its translator's upscale, a
translator its tokenizer's embedding. TOKENS carries `Tokens`, STYLE a `Style`, REGIONS the `Regions` below.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from comfy_api.latest import io

from ..stylerdalle import Style

TOKENIZER = io.Custom("STYLERDALLE_TOKENIZER")
TRANSLATOR = io.Custom("STYLERDALLE_TRANSLATOR")
REWARD = io.Custom("STYLERDALLE_REWARD")
TOKENS = io.Custom("STYLERDALLE_TOKENS")
STYLE = io.Custom("STYLERDALLE_STYLE")
REGIONS = io.Custom("STYLERDALLE_REGIONS")

CATEGORY = "StylerDALLE"
T = TypeVar("T")


@dataclass(frozen=True)
class Region:
    """A part of the picture with a style of its own: a STYLE, a prompt, or both."""

    mask: torch.Tensor  # (B or 1, H, W) in [0, 1]
    prompt: str
    style: Style | None
    feather: float  # px of the picture


@dataclass(frozen=True)
class Regions:
    """In the order they are laid over each other."""

    parts: tuple[Region, ...]


def expect(value: Any, kind: type[T], socket: str) -> T:
    """The value of a socket. Raises ValueError where it is not ours: ComfyUI compares the names of types only."""
    if not isinstance(value, kind):
        raise ValueError(f"{socket} got a {type(value).__name__}: connect the {socket} output of a StylerDALLE node")
    return value


def pixels(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An IMAGE (B, H, W, 3 or 4) as the library has it, not copied: (B, 3, H, W), and its alpha (B, 1, H, W) or None."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.numel():
        raise ValueError(f"the image has shape {tuple(image.shape)}: give pictures (B, H, W, 3), or 4 with alpha")
    if not all(picture.isfinite().all() for picture in image):
        raise ValueError("the image has pixels that are not numbers: look for the node that made them")
    planes = image.movedim(-1, 1)  # (B, C, H, W)
    return planes[:, :3], planes[:, 3:] if planes.shape[1] == 4 else None


def each(image: torch.Tensor) -> Iterator[torch.Tensor]:
    """The pictures of an IMAGE one at a time, float32 (1, 3 or 4, H, W) in [0, 1]."""
    pixels(image)
    for picture in image.split(1):
        yield picture.movedim(-1, 1).float().clamp(0, 1)
