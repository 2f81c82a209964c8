"""Critics of a tuning run: they learn to tell the exemplars from what is painted, and the style learns to pass for one.

Statistics (exemplars.py) compare sums over a picture. Critics look at places, so they see what statistics forgive: marks that
repeat, blurred edges. They stand on the feature network's levels, frozen (features/critic.py), and judge crops.

Letters: k pictures of S x S px.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..features.critic import Head, hinge
from .exemplars import Exemplars, crop

LR = 3e-4  # of Adam on the critics, constant
RISE = 20  # of their first steps, in which their share of the reward rises to the whole


class Critics(nn.Module):
    """One critic for each level of the exemplars' feature network.

    Args:
        size: S, of the crops that they see.
    """

    age: Tensor  # steps learnt, a scalar

    def __init__(self, exemplars: Exemplars, size: int, seed: int = 0):
        super().__init__()
        self._exemplars, self.size = [exemplars], size  # in a list: no parameters of ours
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleList([Head(width) for width in exemplars.network.shape.widths])
        self.register_buffer("age", torch.zeros(()))
        self.to(next(exemplars.network.parameters()).device)

    def forward(self, activations: Sequence[Tensor]) -> Tensor:
        """Activations of k pictures -> how much they pass for exemplars, (k): about -1 to 1, and 0 before the critics learn."""
        self.requires_grad_(False)  # the gradient is the pictures'
        share = (self.age / RISE).clamp(max=1)
        return share * torch.stack([scores.mean((1, 2)) for scores in self.places(activations)]).mean(0)

    def places(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Scores of the places of every level, (k, h, w) each."""
        return [head(level) for head, level in zip(self.heads, activations, strict=True)]

    def learn(self, pictures: Tensor, generator: torch.Generator, weight: float = 1.0) -> None:
        """Add the gradients of a step to the critics.

        Args:
            pictures: painted in this step, (k, 3, S, S) in [0, 1].
            weight: of these pictures among those of all processes.
        """
        self.requires_grad_(True)
        network = self._exemplars[0].network
        with torch.no_grad():
            real, made = network(self.crops(len(pictures), generator)), network(pictures)
        (weight * hinge(self.places(real), self.places(made))).backward()
        self.age += 1

    def crops(self, count: int, generator: torch.Generator) -> Tensor:
        """Crops of exemplars at random places and zooms, mirrored or not, (count, 3, S, S)."""
        shown = self._exemplars[0].pictures
        which = torch.randint(len(shown), (count,), generator=generator).tolist()
        return torch.cat([crop(shown[i], self.size, generator) for i in which])
