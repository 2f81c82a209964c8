"""Paintings: strokes, dots and washes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .marks import Marks, lay
from .operators import (
    blur,
    contours,
    flatten,
    luminance,
    planes_to_image,
    saturate,
    smoothstep,
    stretch,
    to_planes,
    towards,
    warp,
)


def halved(image: np.ndarray, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `function` ((3, h, w) -> (C, h, w)) to a picture (H, W, 3) at half its size -> (C, H, W).

    Outlines become twice as wide, and it takes a quarter of the time.
    """
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((max(1, round(width / 2)), max(1, round(height / 2))), Image.Resampling.LANCZOS)
    out = function(to_planes(np.asarray(small)))
    return F.interpolate(out[None], (height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)


VAN_GOGH = torch.tensor(
    [
        (18, 26, 66), (28, 58, 128), (52, 98, 182), (104, 160, 208), (170, 208, 210),
        (34, 84, 70), (92, 130, 62), (172, 178, 78), (250, 206, 52), (252, 236, 160),
        (236, 150, 40), (200, 148, 70), (122, 76, 44), (190, 66, 40), (70, 44, 40),
    ]
).float().div(255)  # fmt: skip


def van_gogh(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Long curved strokes in swirls, colours moved towards his palette, dark blue outlines, impasto."""

    def colours(planes: Tensor) -> Tensor:
        flat = flatten(saturate(stretch(planes, 0.01, 0.99, 0.8), 1.35), 2, rounds=1)
        out = towards(flat, VAN_GOGH, 1.7, 0.006, 0.85)
        return torch.lerp(out, VAN_GOGH[0].view(3, 1, 1), 0.85 * contours(flat, 1.3))

    return planes_to_image(lay(halved(image, colours), marks, 0.5))


def pointillism(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Dots in pure hues, warm beside cool; the light ground is seen between them."""

    def colours(planes: Tensor) -> Tensor:
        return saturate(0.1 + 0.84 * flatten(stretch(planes, 0.02, 0.98, 0.8).pow(0.85), 2, rounds=1), 1.7)

    pure = halved(image, colours)
    ground = torch.lerp(torch.tensor([0.98, 0.95, 0.86]).view(3, 1, 1).expand_as(pure), pure, 0.3)
    return planes_to_image(torch.lerp(lay(pure, marks, 9.0), ground, marks.line))


def watercolour(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Luminous washes that stray from the drawing, with dark rims, blooms and granulation on white paper."""
    planes = stretch(to_planes(image), 0.01, 0.98, 0.9).pow(0.8)
    flat = flatten(flatten(warp(planes, 0.7 * marks.dy, 0.7 * marks.dx), 3, rounds=1), 4, rounds=2)
    density = marks.more["density"]
    lum = luminance(flat).clamp_min(0.05)
    steps = lum * 5 + 0.6 * density  # brightness in soft steps, one a layer of the wash
    level = torch.floor(steps) + smoothstep(torch.frac(steps), 0.0, 0.2)
    wash = saturate((flat * (0.4 + 0.6 * (level / 5 / lum)).clamp(0.6, 1.4)).clamp(0, 1), 1.6)
    shadow = torch.tensor([0.20, 0.22, 0.34]).view(3, 1, 1)
    wash = shadow + (1 - shadow) * wash
    smooth = blur(luminance(wash), 1.0)
    rim = (blur(smooth, 4.0) - smooth).clamp_min(0)
    paper = smoothstep(smooth, 0.84, 0.97)
    amount = (1.05 + 1.3 * density + 8 * rim) * (1 - 0.9 * paper)
    white = torch.tensor([0.985, 0.98, 0.96]).view(3, 1, 1)
    return planes_to_image(wash.pow(amount.clamp(0.1, 2.8)) * white)


IMPRESSIONIST = torch.tensor(
    [
        (62, 66, 122), (96, 104, 168), (140, 152, 204), (186, 200, 226), (238, 236, 224), (250, 226, 170), (244, 190, 140),
        (222, 146, 138), (176, 116, 150), (80, 124, 100), (130, 168, 108), (190, 206, 134), (150, 116, 100), (88, 74, 96),
    ]
).float().div(255)  # fmt: skip


def impressionism(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Short broken dabs of light: violet for shadow, rose and pale yellow for light, no outline and no black."""

    def colours(planes: Tensor) -> Tensor:
        light = 0.12 + 0.88 * saturate(stretch(planes, 0.01, 0.98, 0.8).pow(0.8), 1.5)
        return towards(flatten(light, 2, rounds=1), IMPRESSIONIST, 1.5, 0.006, 0.65)

    return planes_to_image(lay(halved(image, colours), marks, 0.8))


FAUVE = torch.tensor(
    [
        (28, 36, 120), (30, 90, 190), (70, 170, 210), (20, 110, 80), (60, 170, 80), (180, 210, 60), (250, 220, 60),
        (250, 150, 40), (232, 80, 40), (200, 30, 60), (240, 120, 160), (250, 200, 190), (120, 50, 140), (250, 240, 210),
    ]
).float().div(255)  # fmt: skip


def fauvism(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Broad strokes of pure unmixed colour, shadows blue, violet and green, lights orange and rose, dark blue outlines."""

    def colours(planes: Tensor) -> Tensor:
        """(3, h, w) -> (4, h, w): three channels of colour, one of outlines."""
        crisp = flatten(stretch(planes, 0.01, 0.98).pow(0.9), 2, rounds=1)
        flat = flatten(crisp, 3, rounds=2)
        warm = torch.tensor([0.16, 0.0, -0.16]).view(3, 1, 1)
        tinted = saturate((flat + warm * (2 * smoothstep(luminance(flat), 0.25, 0.75) - 1)).clamp(0, 1), 2.6)
        return torch.cat([towards(blur(tinted, 1.0), FAUVE, 1.3, 0.002), contours(crisp, 1.6, reach=6)[None]])

    both = halved(image, colours)
    return planes_to_image(torch.lerp(lay(both[:3], marks, 0.6), FAUVE[0].view(3, 1, 1), both[3]))


BAROQUE = torch.tensor(
    [
        (14, 9, 7), (38, 24, 16), (68, 42, 26), (104, 66, 38), (146, 98, 56), (190, 142, 88), (226, 188, 132), (248, 226, 180),
        (110, 30, 22), (158, 60, 38), (46, 50, 36), (84, 84, 58), (44, 54, 66),
    ]
).float().div(255)  # fmt: skip


def baroque(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Chiaroscuro: golden light, brown darkness, long soft strokes."""
    planes = flatten(stretch(to_planes(image), 0.02, 0.98), 2, rounds=2)
    lum = luminance(planes).clamp_min(0.02)
    dark = 0.93 * lum.pow(1.7) / (lum.pow(1.7) + 0.42 * (1 - lum).pow(1.3))
    glaze = saturate((planes * (dark / lum)).clamp(0, 1), 1.25)
    return planes_to_image(lay(towards(blur(glaze, 0.7), BAROQUE, 1.0, 0.004, 0.85), marks, 0.3))
