"""Which style has a picture? A linear layer on the statistics of a frozen network's layers, as a loss.

The critics of a style compare its pictures with its real works and do not know other styles. This layer learnt to tell the styles
apart, so its loss asks for what is a style's own. It sees means and deviations of channels alone: palette and marks of a picture,
not where they are.

Letters: B pictures; D statistics; K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.statistics import channel_statistics

SMOOTHING = 0.05  # of the labels when it learns
DROPPED = 0.3  # share of the statistics that it does not see, others each time: no single one decides


class Recogniser(nn.Module):
    """Fitted once, before what learns from it, and not changed by that.

    Args:
        classes: K names.
        widths: channels of the frozen layers; D is twice their sum.
    """

    def __init__(self, classes: Sequence[str], widths: Sequence[int]):
        super().__init__()
        self.classes, count = list(classes), 2 * sum(widths)
        self.centre, self.scale = torch.zeros(count), torch.ones(count)
        self.layer = nn.Linear(count, len(classes))

    def fit(self, seen: Sequence[Tensor], seed: int = 0, steps: int = 600, rows: int = 256) -> None:
        """Learn the classes from the statistics of real pictures, (N_k, D) for each class; all classes count alike."""
        x, y = torch.cat([*seen]), torch.cat([torch.full((len(part),), k, device=part.device) for k, part in enumerate(seen)])
        self.centre, self.scale = x.mean(0), 1 / (x.std(0) + 1e-2)  # channels have a deviation of about 1
        self.layer.to(x.device)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        shares = 1 / torch.bincount(y).float()
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self.layer.parameters(), lr=1e-3, weight_decay=1.0)
        for _ in range(steps):
            some = torch.multinomial(shares[y].cpu(), rows, replacement=True, generator=generator).to(x.device)
            shown = torch.rand(rows, x.shape[1], generator=generator).to(x.device)
            loss = F.cross_entropy(self.scores(x[some], shown), y[some], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.requires_grad_(False)

    def scores(self, statistics: Tensor, shown: Tensor | None = None) -> Tensor:
        """Statistics (B, D) -> (B, K). `shown` (B, D), evenly random in [0, 1], says which of the statistics are hidden: with
        None none of them."""
        x = (statistics - self.centre) * self.scale
        scores: Tensor = self.layer(x if shown is None else x * (shown > DROPPED) / (1 - DROPPED))
        return scores

    def forward(self, seen: Iterable[Tensor], asked: Tensor, shown: Tensor) -> Tensor:
        """Features at each depth, as the critics see them, (B, C, h, w) each, and classes, long (B) -> the mean cross-entropy.

        Args:
            shown: (B, D), as of `scores`.
        """
        with torch.autocast(self.layer.weight.device.type, enabled=False):
            return F.cross_entropy(self.scores(channel_statistics([*seen]), shown), asked)
