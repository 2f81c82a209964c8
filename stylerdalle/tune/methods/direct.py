"""Method `direct`: the reward itself is differentiated, through CLIP and the decoder, down to the logits.

AlignProp (arXiv 2310.03739) and DRaFT (arXiv 2309.17400) do so with diffusion models. Discrete tokens have no gradient: they are
soft, or straight-through samples (`Objective.paint`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .method import Judged, Method, Painter

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def loss(painter: Painter, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator) -> Judged:
    """-reward + colour_weight L1(picture, photo), the colours compared over 16 x 16 px."""
    import torch.nn.functional as F

    picture = painter.drawn(painter.paint(logits, generator), photo, generator)
    whole, crops = painter.judge(picture, photo, text, painter.crops(generator))
    reward = whole.mean() + crops.mean()
    total = -reward
    if weight := painter.config.colour_weight:
        total = total + weight * (F.avg_pool2d(picture, 16) - F.avg_pool2d(photo, 16)).abs().mean()
    return Judged(total, reward.detach(), picture)


DIRECT = Method("follows the gradient of the reward", loss)
