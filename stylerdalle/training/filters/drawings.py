"""Drawings: pencil, charcoal, ink."""

import numpy as np
import torch
from torch import Tensor

from .strokes import blur, contours, flatten, grain, luminance, noise, pixel_grid, smoothstep, stretch, to_image, to_planes

PITCH = 16 / 2**0.5  # of hatching at 45 degrees, in pixels


def pencil_sketch(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Graphite contours with hatching in one direction in the darks and a second in the deepest, on off-white paper."""
    flat = flatten(to_planes(image), 2, rounds=1)
    tone = stretch(luminance(flat), strength=0.8).pow(0.85)
    line = contours(flat, 1.1, reach=3)
    soft = blur(tone, 2.5)
    ink = torch.zeros_like(tone)
    for degrees, start in ((45, 0.6), (-45, 0.22)):
        dark = (1 - soft / start).clamp(0, 1)
        ink = 1 - (1 - ink) * (1 - 0.52 * _hatching(dark, degrees, PITCH, generator, wobble=0))
    ink = 1 - (1 - ink) * (1 - 0.95 * line) * (1 - 0.2 * (1 - soft))
    ink = ink * (1 - 0.12 * noise(generator, tone.shape, 1.5).abs())
    grey = (0.965 + 0.008 * noise(generator, tone.shape, 2)) * (1 - 0.86 * ink)
    return to_image(torch.stack([grey, grey * 0.995, grey * 0.98]))


def charcoal(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Coal rubbed over rough paper in broad slanting streaks under soft broad contours."""
    flat = flatten(to_planes(image), 2, rounds=1)
    tone = stretch(luminance(flat), 0.02, 0.96).pow(0.8)
    y, x = pixel_grid(tone.shape)
    streaks = ((x + y) * (np.pi / 8)).sin() + 0.6 * ((x + y) * (np.pi / 16) + 1).sin()  # of 16 and 32 pixels
    tooth = 0.5 * grain(generator, tone.shape, 2.4) + 1.1 * streaks
    rubbed = smoothstep(1 - blur(tone, 1.5) + 0.10 * tooth, 0.12, 0.95)
    line = (blur(contours(flat, 1.5, reach=5), 0.7) * (1.15 + 0.15 * tooth)).clamp(0, 1)
    coal = 1 - (1 - rubbed) * (1 - line)
    grey = 0.95 * (1 - 0.9 * coal) + 0.008 * tooth
    return to_image(torch.stack([grey, grey * 0.99, grey * 0.965]))


def ink(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Black pen lines, hatching and cross-hatching on white, solid black in the deepest darks."""
    flat = flatten(to_planes(image), 2, rounds=1)
    tone = blur(stretch(luminance(flat), 0.03, 0.97).pow(0.8), 1.5)
    line = contours(flat, 1.2)
    marks = [line, 1 - smoothstep(tone, 0.10, 0.13)]
    for degrees, start in ((45, 0.5), (-45, 0.28)):
        dark = (1 - tone / start).clamp(0, 0.6)
        marks.append(smoothstep(_hatching(dark, degrees, PITCH, generator, wobble=0), 0.3, 0.55))
    return to_image(1 - torch.stack(marks).amax(0).expand(3, -1, -1))


def _hatching(darkness: Tensor, degrees: float, pitch: float, generator: np.random.Generator, wobble: float = 1.5) -> Tensor:
    """Ink (H, W) of parallel strokes at an angle, wider where darkness (H, W) is higher, none where it is 0.

    With 45 degrees, the pitch PITCH and no wobble, strokes repeat every 2 x 2 blocks of 8 pixels: a translator of such tokens
    can foretell them.
    """
    y, x = pixel_grid(darkness.shape)
    turn = np.deg2rad(degrees)
    u = (x * np.cos(turn) + y * np.sin(turn) + wobble * noise(generator, darkness.shape, 60)) / pitch + 200
    v = (y * np.cos(turn) - x * np.sin(turn)) / 70 + 100
    # every line is cut into strokes of its own phase, so that rows do not end together
    phase = torch.frac(v + torch.frac(torch.floor(u) * 0.618))
    pressure = 0.35 + 0.65 * smoothstep(phase, 0.0, 0.15) * (1 - smoothstep(phase, 0.75, 1.0))
    ridge = 1 - (torch.frac(u) - 0.5).abs() * 2
    return smoothstep(ridge + 0.55 * darkness, 0.62, 1.05) * pressure * smoothstep(darkness, 0.0, 0.12)
