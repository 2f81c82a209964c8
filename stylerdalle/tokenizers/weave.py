"""Removal of the weave: fine threads, down and across, with which a decoder fills areas of several likely tokens.

Between different tokens a decoder that was trained against critics (training/polish.py) draws threads 2 to 4 px apart, which
follow the axes because its convolutions do. On a picture of strokes they look like cloth. Strokes and edges are wider, or lean,
or are stronger than the threads, so what is fine across, straight along an axis, and weak is subtracted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import constant

LENGTH = 9  # px, over which a thread is straight
FINE = (-1, -4, 10, -4, -1)  # sixteenths: a pixel less the binomial mean of 5, across a thread
ACROSS = tuple(x / 16 for x in (0, 0, *FINE, 0, 0))  # the same over LENGTH
LIMIT = 0.12  # the most that is subtracted: a strong edge keeps its contrast


def without_weave(images: Tensor) -> Tensor:
    """Decoded pictures (B, 3, H, W) in [0, 1] -> the same, with the threads taken out."""
    fine = constant(ACROSS, images.device)
    kernel = (fine[:, None] + fine) / LENGTH  # along one axis the mean, across it what is fine; both axes
    grey = F.pad(images.float().mean(1, keepdim=True), (LENGTH // 2,) * 4, mode="replicate")
    threads = LIMIT * torch.tanh(F.conv2d(grey, kernel[None, None]) / LIMIT)
    return (images - threads).clamp(0, 1)
