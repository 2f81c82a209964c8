"""A photo -> the same photo in a hand-made approximation of an art style, pixel for pixel in place.

The pairs teach small models what colour statistics do not show: lines, hatching, blocks, strokes, cells and dots. Marks
have fixed sizes in pixels (lines 2-4, blocks 8, strokes 9-17, panes 34) so that they survive tokens of 8x8 pixels, and
lie where the style's texture has them (textures.py), so that a translator that is shown the texture can foretell them.
Nothing is learned here and no artist's method is claimed: `strokes.py` names the papers whose operators are simplified.

    painted = apply("van_gogh", photo, numpy.random.default_rng(0))   # uint8 (H, W, 3), sides from 32 pixels
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawings import charcoal, ink, pencil_sketch
from .paintings import baroque, fauvism, impressionism, pointillism, van_gogh, watercolour
from .panes import cubism, mosaic, stained_glass
from .prints import anime, art_nouveau, comic, pixel_art, pixel_art_4, pop_art, ukiyo_e
from .textures import TEXTURES, Marks, guide, marks_of

Filter = Callable[[np.ndarray, np.random.Generator, Marks], np.ndarray]

FILTERS: dict[str, Filter] = {
    "pencil_sketch": pencil_sketch,
    "pixel_art": pixel_art,
    "pixel_art_4": pixel_art_4,
    "van_gogh": van_gogh,
    "ukiyo_e": ukiyo_e,
    "watercolour": watercolour,
    "comic": comic,
    "pop_art": pop_art,
    "stained_glass": stained_glass,
    "mosaic": mosaic,
    "pointillism": pointillism,
    "charcoal": charcoal,
    "ink": ink,
    "impressionism": impressionism,
    "fauvism": fauvism,
    "baroque": baroque,
    "cubism": cubism,
    "art_nouveau": art_nouveau,
    "anime": anime,
}

PROMPTS: dict[str, tuple[str, ...]] = {
    "pencil_sketch": (
        "a pencil sketch", "a pencil drawing", "a graphite sketch on paper", "a hand-drawn pencil sketch with hatching",
    ),
    "pixel_art": ("pixel art", "a pixel art picture", "8-bit pixel art", "retro video game pixel art"),
    "pixel_art_4": ("pixel art", "16-bit pixel art", "a detailed pixel art picture", "pixel art of an old video game"),
    "van_gogh": (
        "a Van Gogh style oil painting", "an oil painting in the style of Vincent van Gogh",
        "a post-impressionist oil painting with swirling brush strokes", "a Van Gogh painting",
    ),
    "ukiyo_e": ("a ukiyo-e print", "a Japanese woodblock print", "a ukiyo-e woodblock print by Hiroshige", "ukiyo-e"),
    "watercolour": ("a watercolour painting", "a watercolor painting", "a watercolour on paper", "watercolor"),
    "comic": ("a comic book illustration", "a comic book panel", "comic art with halftone dots", "a comic"),
    "pop_art": ("pop art", "a pop art picture", "a pop art screen print", "pop art in the style of Andy Warhol"),
    "stained_glass": ("stained glass", "a stained glass window", "a picture in stained glass", "leaded stained glass"),
    "mosaic": ("a mosaic", "a mosaic of small tiles", "a Roman mosaic", "a picture made of mosaic tiles"),
    "pointillism": (
        "a pointillist painting", "a pointillism painting", "a painting made of dots", "a painting by Georges Seurat",
    ),
    "charcoal": ("a charcoal drawing", "a charcoal sketch", "a drawing in black charcoal on paper"),
    "ink": ("an ink drawing", "a black ink drawing", "a pen and ink illustration", "black ink on white paper"),
    "impressionism": (
        "an impressionist oil painting", "impressionism", "an impressionist painting in broken dabs of light",
        "a painting by Claude Monet",
    ),
    "fauvism": ("a fauvist painting", "fauvism", "a fauvism painting in wild pure colours", "a painting by Andre Derain"),
    "baroque": ("a baroque oil painting", "baroque", "a baroque painting with dark chiaroscuro", "an old master painting"),
    "cubism": ("a cubist painting", "cubism", "a cubist painting of angular facets", "analytic cubism"),
    "art_nouveau": (
        "an art nouveau poster", "art nouveau", "an art nouveau illustration with strong outlines", "a poster by Alphonse Mucha",
    ),
    "anime": ("anime", "an anime picture", "anime cel shading", "a frame of an anime film"),
}  # fmt: skip


def apply(name: str, image: np.ndarray, generator: np.random.Generator, place: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Filter `name` of a uint8 (H, W, 3) picture with sides of 32 pixels or more; same size, same seed same picture.

    Args:
        place: (y, x) of the picture's top left pixel on the tile of the style's texture.
    """
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}; choose one of: {', '.join(FILTERS)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if min(image.shape[:2]) < 32:
        raise ValueError(f"a picture must be at least 32 pixels wide and high, got {image.shape[:2]}")
    return FILTERS[name](image, generator, marks_of(name).at(place, image.shape[:2]))


def texture(name: str) -> np.ndarray | None:
    """The picture of a filter's marks on plain grey, uint8 (SIDE, SIDE, 3), which repeats without a seam; None without marks."""
    if name not in TEXTURES:
        return None
    return (guide(marks_of(name)).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
