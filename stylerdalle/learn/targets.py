"""Soft targets: a token shares its probability with the nearest codes, for they look nearly the same.

Letters: V tokens in the vocabulary; m codes that share a target; B pictures of N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def soft_targets(embeddings: Tensor, neighbours: int, softness: float) -> tuple[Tensor, Tensor]:
    """For every token its nearest codes, long (V, m), itself first, and their shares (V, m), each row summing to 1.

    The share of code j for token i is proportional to exp(-|e_i - e_j|^2 / (softness * s)), s the mean squared distance of a
    code to the nearest other one. With softness 0 or one neighbour targets are hard: the token alone, m = 1.

    Args:
        embeddings: (V, D_tok).
        neighbours: m.
    """
    if softness == 0 or neighbours == 1:
        itself = torch.arange(len(embeddings), device=embeddings.device)[:, None]
        return itself, torch.ones_like(itself, dtype=embeddings.dtype)
    square = torch.cdist(embeddings, embeddings).square()
    distance, index = square.topk(neighbours, largest=False)  # (V, m)
    return index, (-distance / (softness * distance[:, 1].mean())).softmax(-1)


def soft_cross_entropy(logits: Tensor, target: Tensor, index: Tensor, shares: Tensor) -> Tensor:
    """-sum_j share_j log p_j at every place -> (B, N).

    Args:
        logits: (B, N, V).
        target: long (B, N).
        index, shares: as of `soft_targets`.
    """
    picked = logits.float().gather(-1, index[target])  # (B, N, m)
    return logits.float().logsumexp(-1) - (picked * shares[target]).sum(-1)
