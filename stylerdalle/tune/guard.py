"""The held-out score of a tuning run: which adapter to keep, and when to stop.

A reward that is followed long enough is gamed (SpectralCLIP, arXiv 2303.09270; GARDO, arXiv 2512.24138). The held-out score uses
photos that tuning never sees, and other views of the pictures: mirrored, and cropped at fixed places.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..clip import scores as reward
from ..distributed import processes
from ..translator.style import Style
from .objective import Objective

VIEWS = 6  # crops of each held-out picture, the same ones in every check


class Guard:
    """Keeps the adapter with the best held-out score, and counts the checks since it improved.

    Args:
        photos: held out, (H, 3, S, S) in [0, 1].
    """

    def __init__(self, objective: Objective, photos: Tensor):
        self.objective, self.photos = objective, photos
        self.best: dict[str, Tensor] = {}  # tensors of the best adapter
        self.best_score, self.best_step, self.first_score, self.stale = -math.inf, 0, math.nan, 0

    @torch.no_grad()
    def score(self, style: Style, tick: Callable[[], None] = lambda: None) -> float:
        """Mean cosine of CLIP's views of the stylised held-out photos to the style prompt, in [-1, 1]; less their distance from
        the exemplars, if there are any.

        Args:
            tick: called once a photo; may raise to cancel.
        """
        o, generator = self.objective, torch.Generator().manual_seed(10_007)
        values = []
        for photo in self.photos.split(1):
            tick()
            with o.autocast():
                photo = photo.to(o.device)
                out = o.drawn(o.paint(o.logits(o.content(photo), style).float()), photo).flip(-1)  # (1, 3, S, S)
                boxes = reward.crop_boxes(VIEWS, out.shape[-1], generator, least=0.6)
                views = torch.cat([reward.take_crops(out, [box], o.clip.visual.input_resolution) for box in boxes])
                values.append(reward.cosine(o.see(views), o.style).mean())
                if o.exemplars:
                    values[-1] = values[-1] - o.exemplars.nearest(o.exemplars.network(out)).mean()
        return float(torch.stack(values).mean())

    def check(self, style: Style, step: int, kl: float, tick: Callable[[], None] = lambda: None) -> float:
        """Score the style and keep it if it is the best within the KL budget -> the score. Collective.

        Args:
            kl: of the style to the base translator, nats a token.
        """
        score, budget = processes().broadcast_value(self.score(style, tick)), self.objective.config.kl_budget
        self.stale += 1
        if math.isnan(self.first_score):
            self.first_score = score
        if score > self.best_score and not (budget and kl > budget):
            self.best = {name: tensor.detach().clone() for name, tensor in style.tensors.items()}
            self.best_score, self.best_step, self.stale = score, step, 0
        return score

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "first_score": self.first_score,
            "stale": self.stale,
        }

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.best = state_dict["best"]
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self.first_score, self.stale = state_dict["first_score"], state_dict["stale"]


def verdict(rows: list[dict[str, str]]) -> str | None:
    """A warning if the reward rose over a run while the held-out score fell, from the rows of its curve; else None."""
    rewards = [float(row["reward"]) for row in rows if row["reward"]]
    held_out = [float(row["held_out"]) for row in rows if row["held_out"]]
    if len(rewards) < 8 or len(held_out) < 2:
        return None
    quarter = len(rewards) // 4
    gain = sum(rewards[-quarter:]) / quarter - sum(rewards[:quarter]) / quarter
    lost = held_out[0] - held_out[-1]
    if gain > 0 and lost > 0:
        return (
            f"the reward rose by {gain:.3f} while the score on held-out photos fell by {lost:.3f}: the style learns to please "
            "CLIP, not to look better. Use fewer steps, more photos, a lower learning rate or a higher kl_weight"
        )
    return None
