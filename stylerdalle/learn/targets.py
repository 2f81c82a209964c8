"""Soft targets: a token's nearest codes share its probability."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

log = logging.getLogger(__name__)


@torch.no_grad()
def soft_targets(embeddings: Tensor, neighbours: int, softness: float) -> tuple[Tensor, Tensor]:
    """For every token its nearest codes (V, m), itself first, and their shares (V, m), each row summing to 1.

    Hard targets (softness 0 or one neighbour) are the token alone, m = 1.

    Share of code j for token i: exp(-|e_i - e_j|^2 / (softness * s)), s the mean squared distance to the nearest other code.
    """
    if softness == 0 or neighbours == 1:
        itself = torch.arange(len(embeddings), device=embeddings.device)[:, None]
        return itself, torch.ones_like(itself, dtype=embeddings.dtype)
    square = torch.cdist(embeddings, embeddings).square()
    distance, index = square.topk(neighbours, largest=False)  # (V, m)
    return index, (-distance / (softness * distance[:, 1].mean())).softmax(-1)


def soft_cross_entropy(logits: Tensor, target: Tensor, index: Tensor, shares: Tensor) -> Tensor:
    """-sum_j share_j log p_j at every place: logits (B, N, V), target (B, N) -> (B, N)."""
    picked = logits.float().gather(-1, index[target])  # (B, N, m)
    return logits.float().logsumexp(-1) - (picked * shares[target]).sum(-1)
