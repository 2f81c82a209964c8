"""Tones: the colours or the light that words of a prompt ask for, as in "a blue watercolour" or "at night".

night = tone("night", images)   # float (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...images.colour import LUMA_601, luma


def grey(x: Tensor) -> Tensor:
    """Images (B, 3, H, W) without colour -> the same shape."""
    return luma(x, LUMA_601).expand_as(x)


def ramp(*colours: tuple[float, float, float]) -> Callable[[Tensor], Tensor]:
    """Map greys to a ramp of colours; the first stands for black, the last for white."""

    def function(x: Tensor) -> Tensor:
        stops = x.new_tensor(colours)  # (K, 3)
        place = grey(x)[..., 0, :, :] * (len(colours) - 1)  # (B, H, W)
        low = place.floor().clamp(max=len(colours) - 2).long()
        share = (place - low)[..., None]
        return (stops[low] * (1 - share) + stops[low + 1] * share).movedim(-1, -3)

    return function


def tinted(colour: tuple[float, float, float], share: float = 0.65, light: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Move colours by `share` towards shades of one colour; white stays nearly white."""
    shades = ramp((0.03, 0.03, 0.05), colour, (0.97, 0.97, 0.95))

    def function(x: Tensor) -> Tensor:
        return ((1 - share) * x + share * shades(x)) * light

    return function


def lit(colour: tuple[float, float, float], power: float = 1.0, lift: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Light of a colour; `power` above 1 darkens, `lift` adds white."""

    def function(x: Tensor) -> Tensor:
        return lift + (1 - lift) * x**power * x.new_tensor(colour).view(3, 1, 1)

    return function


TONES: dict[str, Callable[[Tensor], Tensor]] = {
    "grey": grey,
    "sepia": ramp((0.14, 0.09, 0.05), (0.58, 0.43, 0.28), (0.96, 0.89, 0.74)),
    "noir": lambda x: 1.8 * (grey(x) - 0.55) + 0.45,
    "negative": lambda x: 1 - grey(x),
    "red": tinted((0.78, 0.16, 0.12)),
    "blue": tinted((0.16, 0.32, 0.75)),
    "green": tinted((0.20, 0.55, 0.22)),
    "purple": tinted((0.50, 0.22, 0.66)),
    "pink": tinted((0.92, 0.48, 0.62)),
    "golden": lit((1.06, 0.86, 0.50), 0.95),
    "autumn": lambda x: lit((1.05, 0.80, 0.55), 1.1)(0.5 * x + 0.5 * tinted((0.72, 0.38, 0.10), 1.0)(x)),
    "cold": lambda x: lit((0.84, 0.95, 1.08), 0.85, 0.08)(0.55 * x + 0.45 * grey(x)),
    "pale": lambda x: lit((1.0, 1.0, 1.0), 1.0, 0.45)(0.7 * x + 0.3 * grey(x)),
    "dark": lit((0.80, 0.76, 0.72), 1.7),
    "night": lambda x: lit((0.34, 0.46, 0.86), 1.35)(0.6 * x + 0.4 * grey(x)),
}


def tone(name: str, images: Tensor) -> Tensor:
    """Images float (B, 3, H, W) in [0, 1] in tone `name` -> the same shape. Raises ValueError for an unknown one."""
    if name not in TONES:
        raise ValueError(f"unknown tone {name!r}; choose one of: {', '.join(TONES)}")
    return torch.clamp(TONES[name](images), 0, 1)
