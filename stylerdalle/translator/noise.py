"""Noise on the token grid, an input of the translator beside the content and the texture.

Where the content is plain, equal places would get equal tokens: the same mark again and again. A texture (texture.py) tells them
apart, but repeats; noise never does. A translator reads it if its config says so, whatever the style.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SPACINGS = (1, 2)  # places between independent values, one plane each


def noise_field(height: int, width: int, generator: torch.Generator, count: int = 1) -> Tensor:
    """Smooth normal noise on the token grid: (count, K, height, width), a plane for each of SPACINGS, each of variance 1 at
    its own grid points. Equal generators give equal fields."""
    planes = []
    for spacing in SPACINGS:
        coarse = torch.randn(count, 1, -(-height // spacing) + 1, -(-width // spacing) + 1, generator=generator)
        fine = F.interpolate(coarse, scale_factor=float(spacing), mode="bicubic") if spacing > 1 else coarse
        planes.append(fine[:, :, :height, :width])
    return torch.cat(planes, 1)


def noise_grid(height: int, width: int, seed: int) -> Tensor:
    """The noise of one picture of height x width tokens: (height, width, K)."""
    return noise_field(height, width, torch.Generator().manual_seed(seed))[0].permute(1, 2, 0)


def noise_at(places: Tensor, side: int) -> Tensor:
    """Noise of pictures in training, each of side x side tokens: (B, side, side, K).

    Args:
        places: (B, 2), which also say where the pictures lie on their texture; equal places give equal noise.
    """
    return torch.stack([noise_grid(side, side, (y << 32) + x) for y, x in places.tolist()])
