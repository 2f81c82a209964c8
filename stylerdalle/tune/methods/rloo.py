"""Method `rloo`: REINFORCE leave-one-out (arXiv 2402.14740). Several samples of one photo share one forward pass, and each is
judged against the mean of the others.

Unlike there, the reward of a crop is credited to the tokens under it (`clip.scores.credit`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .method import Judged, Method, Painter, draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def loss(painter: Painter, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator) -> Judged:
    """-mean over samples k and places i of A_ki log p_ki, A_k = r_k - mean of the other samples' r."""
    import torch

    from ...clip.scores import credit

    options = painter.config
    tokens, log_p = draw(logits, options.samples, generator)  # (k, h, w) each
    boxes = painter.crops(generator)
    with torch.no_grad():
        pictures = painter.drawn(painter.decode(tokens), photo)
        whole, crops = painter.judge(pictures, photo, text, boxes)
        rewards = whole[:, None, None] + credit(crops, boxes, photo.shape[-1], tokens.shape[1])  # (k, h, w)
        others = (rewards.sum(0) - rewards) / (options.samples - 1)
        advantage = rewards - others
        if options.normalise_advantage:
            advantage = advantage / (advantage.std() + 1e-6)
    return Judged(-(advantage * log_p).mean(), whole.mean() + crops.mean(), pictures)


RLOO = Method(
    "learns from several samples of each photo, each against the mean of the others",
    loss,
    defaults={"softness": 0.0, "batch": 2, "normalise_advantage": True},
)
