"""The socket types of this pack, and the Python type of their values.

TOKENIZER, TRANSLATOR and REWARD are all the `Bundle` that Load opened, because the nodes need several of its parts: Tokenize
reads the translator's upscale, Translate the tokenizer's embedding. TOKENS is `Tokens`, STYLE a `Style`, REGIONS the `Regions`
below.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from comfy_api.latest import io

from ..stylerdalle import Style
from ..stylerdalle.settings import shortened

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
    """A part of the picture and its style: a STYLE, a prompt, or both."""

    mask: torch.Tensor  # (B or 1, H, W) in [0, 1]
    prompt: str
    style: Style | None
    feather: float  # px of the picture, to each side of the mask's edge


@dataclass(frozen=True)
class Regions:
    """Regions from bottom to top: a later one covers earlier ones."""

    parts: tuple[Region, ...]


def schema(**given: Any) -> io.Schema:
    """An io.Schema without the fields that this ComfyUI does not have yet, such as search_aliases."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(**{name: value for name, value in given.items() if name in known})


def rare(given: io.Input) -> io.Input:
    """The input as one that ComfyUI's page hides among the advanced ones. Older hosts have no argument for it, but pass it on."""
    given.extra_dict = {**given.extra_dict, "advanced": True}
    return given


def expect(value: Any, kind: type[T], socket: str) -> T:
    """The value of a socket. Raises ValueError if it is of another type: ComfyUI compares only the names of types."""
    if not isinstance(value, kind):
        raise ValueError(f"{socket} got a {type(value).__name__}: connect the {socket} output of a StylerDALLE node")
    return value


def tensor(value: Any, socket: str) -> torch.Tensor:
    """An IMAGE or MASK. Raises ValueError for another value: over the API, ComfyUI lets any text pass for one."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{socket} got a {type(value).__name__}: connect the {socket} output of a node, such as Load Image")
    return value


def of_known_inputs(execute: Callable[..., T]) -> Callable[..., T]:
    """A node's function that refuses inputs it does not have. Over the API, ComfyUI passes on whatever a workflow holds.

    Raises:
        ValueError: an unknown input; calling the function itself would be a TypeError.
    """
    known = inspect.signature(execute).parameters

    @functools.wraps(execute)
    def call(cls: type, **inputs: Any) -> T:
        for name in inputs:
            if name not in known:
                raise ValueError(
                    f"this node has no input {shortened(repr(name))}: remove it from the workflow, or update the pack if a newer "
                    "version made it"
                )
        return execute(cls, **inputs)

    return call


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError for a number out of range, or NaN: ComfyUI does not check the numbers of connected inputs, nor NaN."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} {value} is out of range: {low:g} to {high:g}")


def pixels(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An IMAGE (B, H, W, 3 or 4) in the library's layout, as views: (B, 3, H, W), and alpha (B, 1, H, W) or None.

    Raises:
        ValueError: another shape, no pixels, or values that are NaN or infinite.
    """
    image = tensor(image, "IMAGE")
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.numel():
        raise ValueError(
            f"the image has shape {tuple(image.shape)}: connect pictures of shape (B, H, W, 3), or (B, H, W, 4) with alpha"
        )
    if not all(picture.isfinite().all() for picture in image):
        raise ValueError("the image has NaN or infinite pixels: check the node that made it")
    split = image.movedim(-1, 1)  # (B, C, H, W)
    return split[:, :3], split[:, 3:] if split.shape[1] == 4 else None


def clamped(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `pixels`, float32 in [0, 1]."""
    images, alpha = pixels(image)
    return images.float().clamp(0, 1), None if alpha is None else alpha.float().clamp(0, 1)


def planes(mask: torch.Tensor) -> torch.Tensor:
    """A MASK, (H, W) or (B, H, W), as (1 or B, H, W).

    Raises:
        ValueError: another shape, or no mask at all.
    """
    mask = tensor(mask, "MASK")
    if mask.ndim not in (2, 3) or not mask.numel():
        raise ValueError(f"the mask has shape {tuple(mask.shape)}: connect masks of shape (B, H, W)")
    return mask.reshape(-1, *mask.shape[-2:])


def each(image: torch.Tensor) -> Iterator[torch.Tensor]:
    """The pictures of an IMAGE (B, H, W, 3 or 4), one at a time: float32 (1, 3 or 4, H, W) in [0, 1]."""
    pixels(image)
    for picture in image.split(1):
        yield picture.movedim(-1, 1).float().clamp(0, 1)
