"""Vector quantisation with a codebook learnt by moving averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1).

Unlike there, unused codes are moved onto vectors of the current batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantizer(nn.Module):
    """A codebook of K vectors.

    Args:
        codes: K.
        dim: size of a code.
        decay: of the moving averages; a smaller one follows the encoder faster.
    """

    codebook: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", torch.zeros(codes, dim))
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", torch.zeros(codes, dim))

    def nearest(self, z: Tensor) -> Tensor:
        """Vectors (N, dim) -> indices (N) of their nearest codes, in float32. Works in parts that fit the CPU's cache."""
        bias = -0.5 * self.codebook.square().sum(1)
        with torch.autocast(z.device.type, enabled=False):
            return torch.cat([torch.addmm(bias, part, self.codebook.t()).argmax(1) for part in z.split(512)])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z (B, dim, h, w) -> (quantised z with straight-through gradient, indices (B, h, w), commitment loss).

        In training mode the codebook then follows z.
        """
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).float()  # (N, dim)
        with torch.no_grad():
            index = self.nearest(flat)
            if self.training:
                self._update(flat, index)
        code = self.codebook[index].view(z.shape[0], z.shape[2], z.shape[3], -1).permute(0, 3, 1, 2)
        commitment = F.mse_loss(z.float(), code)
        return z + (code - z).detach(), index.view(z.shape[0], *z.shape[2:]), commitment

    @torch.no_grad()
    def place_codes(self, vectors: Tensor, generator: torch.Generator, rounds: int = 8) -> None:
        """Place the codes by `rounds` of k-means on vectors (N, dim).

        Raises:
            ValueError: N < K.
        """
        if len(vectors) < len(self.codebook):
            raise ValueError(
                f"{len(vectors)} vectors cannot place {len(self.codebook)} codes: "
                "take larger batches or crops, or more steps before quantisation begins"
            )
        chosen = torch.randperm(len(vectors), generator=generator)[: len(self.codebook)].to(vectors.device)
        self.codebook.copy_(vectors[chosen])
        for _ in range(rounds):
            index = self.nearest(vectors)
            count = torch.bincount(index, minlength=len(self.codebook)).float()
            total = torch.zeros_like(self.codebook).index_add_(0, index, vectors)
            self.codebook.copy_(torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], self.codebook))
        self.count.fill_(len(vectors) / len(self.codebook))
        self.total.copy_(self.codebook * self.count[:, None])

    def _update(self, flat: Tensor, index: Tensor) -> None:
        """Move the codes towards the vectors (N, dim) that were assigned to them by index (N)."""
        count = torch.bincount(index, minlength=len(self.codebook)).float()
        total = torch.zeros_like(self.codebook).index_add_(0, index, flat)
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        self.codebook.copy_(self.total / self.count.clamp(min=1e-3)[:, None])
        dead = (self.count < 0.05 * self.count.mean()).nonzero()[:, 0]
        if len(dead):
            fresh = flat[torch.linspace(0, len(flat) - 1, len(dead)).long()]
            self.codebook[dead] = fresh
            self.count[dead] = self.count.mean()
            self.total[dead] = fresh * self.count.mean()
