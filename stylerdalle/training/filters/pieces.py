"""Pictures of pieces: stained glass, mosaic, cubist facets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .marks import Marks, lay
from .operators import (
    blur,
    boundaries,
    contours,
    emboss,
    flatten,
    flow,
    luminance,
    means,
    noise,
    planes_to_image,
    saturate,
    stretch,
    superpixels,
    to_planes,
    towards,
)
from .paintings import halved


def stained_glass(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Saturated panes of irregular shape between dark lines of lead, which also follow the contours."""

    def colours(planes: Tensor) -> Tensor:
        """(3, h, w) -> (4, h, w): three channels of the glass's colour, one of lead along contours."""
        flat = flatten(stretch(planes, 0.02, 0.98), 2, rounds=2)
        return torch.cat([saturate(flatten(flat, 4, rounds=1), 2.0), contours(flat, 1.3)[None]])

    both = halved(image, colours)
    lead = torch.maximum(marks.line, both[3])
    glass = 0.06 + 1.02 * lay(both[:3], marks, 0.55)
    return planes_to_image(glass * (1 - 0.94 * lead))


def mosaic(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Nearly square stones of about 10 pixels, in rows along the contours, in light grout."""
    planes = saturate(stretch(to_planes(image), 0.01, 0.99), 1.6)
    lum = luminance(planes)
    angle = flow(lum, 5.0, noise(generator, image.shape[:2], min(lum.shape) / 2), floor=2e-4)
    labels = superpixels(planes, 10, 0.7, angle, generator)
    stones = _mean_colours(planes, labels, 0.05, generator)
    grout = boundaries(labels, 1.3)
    stones = stones * emboss(1 - blur(grout, 0.8), 0.25)
    return planes_to_image(torch.lerp(stones, torch.tensor([0.87, 0.84, 0.77]).view(3, 1, 1), 0.9 * grout))


def _mean_colours(planes: Tensor, labels: Tensor, jitter: float, generator: np.random.Generator) -> Tensor:
    """Every cell (labels (H, W)) in the mean colour of planes (3, H, W), plus noise of deviation `jitter` in each channel."""
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


def cubism(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Angular facets in ochre and grey, shaded from edge to edge; each shows the picture a little out of place."""

    def colours(planes: Tensor) -> Tensor:
        return flatten(stretch(planes, 0.01, 0.98), 2, rounds=2)

    def outlines(planes: Tensor) -> Tensor:
        return contours(flatten(planes, 2, rounds=1), 1.2, reach=6)[None]

    ochre = torch.tensor([0.04, 0.015, -0.04]).view(3, 1, 1)
    seen = (lay(halved(image, colours), marks, 9.0) + ochre).clamp(0, 1)
    out = towards(seen, CUBIST, 1.0, 0.004, 0.85)
    out = torch.lerp(out, CUBIST[0].view(3, 1, 1), torch.maximum(marks.line, 0.8 * halved(image, outlines)[0]))
    return planes_to_image(out)
