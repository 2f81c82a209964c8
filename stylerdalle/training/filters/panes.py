"""Pictures of pieces: stained glass, mosaic, cubist facets."""

import numpy as np
import torch
from torch import Tensor

from .strokes import (
    along,
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


FACET = 16  # pixels between the edges of a family of facets, before they are enlarged
FACET_SHIFT = 1.5  # pixels by which facets displace what they show


def cubism(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Slanting facets shaded from edge to edge, laid another way in every tone of the picture, in ochre and grey."""
    planes = flatten(stretch(to_planes(image), 0.01, 0.98), 2, rounds=2)
    y, x = pixel_grid(planes.shape[1:])
    tone = luminance(blur(flatten(planes, 4, rounds=2), 1.0))
    tone = along(tone, flow(tone, 3.0, x + y, floor=1e-3), 6)
    turned = torch.floor(4 * tone) % 2 > 0
    y, x = torch.where(turned, x, y), torch.where(turned, -y, x)
    shade, dy, dx = torch.ones_like(tone), torch.zeros_like(tone), torch.zeros_like(tone)
    for across, depth in ((1, 0.34), (0, 0.22)):  # diagonal edges, and straight ones
        place = torch.remainder((y + across * x) / FACET + torch.floor(8 * tone) / 2, 1) - 0.5  # in its facet, -0.5 to 0.5
        shade = shade * (1 - 2 * depth * place)
        dy, dx = dy + 2 * FACET_SHIFT * place, dx - 2 * FACET_SHIFT * across * place
    ochre = torch.tensor([0.04, 0.015, -0.04]).view(3, 1, 1)
    colours = (warp(planes, dx, dy) * shade + ochre).clamp(0, 1)
    colours = towards(colours, CUBIST, 1.0, 0.004, 0.85)
    return to_image(torch.lerp(colours, CUBIST[0].view(3, 1, 1), contours(planes, 1.2, reach=6)))
