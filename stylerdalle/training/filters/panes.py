"""Pictures of pieces: stained glass, mosaic, cubist facets."""

import numpy as np
import torch
from torch import Tensor

from .strokes import (
    blur,
    boundaries,
    cells,
    contours,
    emboss,
    flatten,
    flow,
    luminance,
    means,
    noise,
    pixel_grid,
    saturate,
    stretch,
    to_image,
    to_planes,
    towards,
    warp,
)


def stained_glass(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Luminous saturated panes of about 11 pixels, bordered by dark lead that also follows the contours."""
    flat = flatten(stretch(to_planes(image), 0.02, 0.98), 2, rounds=2)
    labels = cells(flat, 8, 2.2, None, generator, staggered=True)
    lead = torch.maximum(boundaries(labels, 1.5), contours(flat, 1.1))
    amber = torch.tensor([0.05, 0.0, -0.05]).view(3, 1, 1) * (1 - 2 * (labels // (-(-flat.shape[2] // 16)) % 2))  # or blue
    glass = saturate((_cell_colours(flat, labels, 0.0, generator) + amber).clamp(0, 1), 2.2)
    glow = 1.12 - 0.45 * blur(lead, 2.5) + 0.05 * noise(generator, lead.shape, 5)
    return to_image((0.08 + 0.95 * glass) * glow * (1 - 0.93 * lead))


def mosaic(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Square-ish tiles of about 10 pixels laid along the contours in light grout."""
    planes = saturate(stretch(to_planes(image), 0.01, 0.99), 1.6)
    lum = luminance(planes)
    angle = flow(lum, 5.0, noise(generator, lum.shape, min(lum.shape) / 2), floor=2e-4)
    labels = cells(planes, 10, 0.7, angle, generator)
    tiles = _cell_colours(planes, labels, 0.05, generator)
    grout = boundaries(labels, 1.3)
    tiles = tiles * emboss(1 - blur(grout, 0.8), 0.25)
    return to_image(torch.lerp(tiles, torch.tensor([0.87, 0.84, 0.77]).view(3, 1, 1), 0.9 * grout))


def _cell_colours(planes: Tensor, labels: Tensor, jitter: float, generator: np.random.Generator) -> Tensor:
    """Planes whose every cell has its mean colour, off by `jitter` in each channel."""
    count = int(labels.max()) + 1
    colour = means(planes.flatten(1), labels.flatten(), count)
    colour = colour + jitter * torch.from_numpy(generator.standard_normal((3, count), dtype=np.float32))
    return colour[:, labels.flatten()].view_as(planes)


CUBIST = torch.tensor(
    [
        (36, 32, 30), (74, 64, 54), (112, 94, 74), (154, 128, 94), (194, 166, 120), (226, 206, 166), (240, 232, 210),
        (96, 104, 92), (136, 146, 132), (80, 96, 108), (140, 156, 162), (150, 92, 60),
    ]
).float().div(255)  # fmt: skip


def cubism(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Planes that break the picture along its own directions, each shaded from edge to edge, in ochre, grey and green."""
    planes = flatten(stretch(to_planes(image), 0.01, 0.98), 2, rounds=2)
    lum = luminance(planes)
    y, x = pixel_grid(lum.shape)
    angle = flow(lum, 5.0, x + 1.7 * y, floor=1e-3)
    turn = torch.remainder(torch.round(angle / (torch.pi / 4)), 4)  # 0: along x, 1: along x + y, 2: along y, 3: along y - x
    across = torch.stack([y, y - x, -x, -x - y])[turn.long(), y.long(), x.long()]
    ramp = torch.remainder(across / 16, 1)  # over a plane 0 to 1, and again every 16 pixels
    dy, dx = ((ramp - 0.5) * 8 * part for part in (angle.sin(), angle.cos()))
    ochre = torch.tensor([0.04, 0.015, -0.04]).view(3, 1, 1)
    colours = (warp(planes, dy, dx) * (0.66 + 0.62 * ramp) + ochre).clamp(0, 1)
    colours = towards(colours, CUBIST, 1.0, 0.004, 0.85)
    edge = torch.maximum(0.4 * boundaries(turn, 1.2), contours(planes, 1.2, reach=6))
    return to_image(torch.lerp(colours, CUBIST[0].view(3, 1, 1), edge))
