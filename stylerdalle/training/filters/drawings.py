"""Drawings: pencil, charcoal, ink."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .marks import Marks
from .operators import blur, contours, flatten, luminance, planes_to_image, smoothstep, stretch, to_planes


def pencil_sketch(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Graphite contours on off-white paper, hatching in dark areas, a second direction of hatching in the darkest."""
    flat = flatten(to_planes(image), 2, rounds=1)
    lum = stretch(luminance(flat), strength=0.8).pow(0.85)
    line = contours(flat, 1.1, reach=3)
    soft = blur(lum, 2.5)
    ink = torch.zeros_like(lum)
    for ridge, start in (("first", 0.68), ("second", 0.3)):
        dark = (1 - soft / start).clamp(0, 1)
        ink = 1 - (1 - ink) * (1 - 0.55 * _inked(marks.more[ridge], dark))
    ink = 1 - (1 - ink) * (1 - 0.95 * line) * (1 - 0.2 * (1 - soft))
    ink = ink * (1 - 0.10 * marks.more["tooth"].abs())
    grey = 0.965 * (1 - 0.86 * ink)
    return planes_to_image(torch.stack([grey, grey * 0.995, grey * 0.98]))


def charcoal(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Coal rubbed over rough paper in broad slanting streaks, with soft broad contours."""
    flat = flatten(to_planes(image), 2, rounds=1)
    lum = stretch(luminance(flat), 0.02, 0.96).pow(0.8)
    tooth = marks.more["tooth"]
    rubbed = smoothstep(1 - blur(lum, 1.5) + 0.13 * tooth, 0.12, 0.95)
    line = (blur(contours(flat, 1.5, reach=5), 0.7) * (1.15 + 0.15 * tooth)).clamp(0, 1)
    coal = 1 - (1 - rubbed) * (1 - line)
    grey = 0.95 * (1 - 0.9 * coal) + 0.008 * tooth
    return planes_to_image(torch.stack([grey, grey * 0.99, grey * 0.965]))


def ink(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Black pen lines, hatching and cross-hatching on white, solid black in the deepest darks."""
    flat = flatten(to_planes(image), 2, rounds=1)
    lum = blur(stretch(luminance(flat), 0.03, 0.97).pow(0.8), 1.5)
    drawn = [contours(flat, 1.2), 1 - smoothstep(lum, 0.10, 0.13)]
    for ridge, start in (("first", 0.55), ("second", 0.3)):
        dark = (1 - lum / start).clamp(0, 0.6)
        drawn.append(smoothstep(_inked(marks.more[ridge], dark), 0.3, 0.55))
    return planes_to_image(1 - torch.stack(drawn).amax(0).expand(3, -1, -1))


def _inked(ridge: Tensor, darkness: Tensor) -> Tensor:
    """Ink (H, W) along ridges (H, W): wider lines where darkness (H, W) is higher, none where it is 0."""
    return smoothstep(ridge + 0.55 * darkness, 0.62, 1.05) * smoothstep(darkness, 0.0, 0.12)
