"""When to stop a tuning run, and which of its adapters to keep: what is seen on photos that tuning never touched.

A reward that is climbed long enough is gamed (SpectralCLIP, arXiv 2303.09270; GARDO, arXiv 2512.24138). The held-out score
looks at other photos, and through other views than tuning does: mirrored, and cut at places of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..clip import scores as reward
from ..distributed import processes
from ..translator.style import Style

if TYPE_CHECKING:
    from .objective import Objective


VIEWS = 6  # crops of each held-out picture, fixed


class Guard:
    """The best adapter so far by held-out score, and for how many checks there was no better one.

    Args:
        photos: held-out, (H, 3, S, S) in [0, 1].
    """

    def __init__(self, objective: Objective, photos: Tensor):
        self.objective, self.photos = objective, photos
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step, self.first_score, self.stale = -math.inf, 0, math.nan, 0

    @torch.no_grad()
    def score(self, style: Style, tick: Callable[[], None] = lambda: None) -> float:
        """Mean cosine of CLIP's views of the stylised held-out photos to the style prompt, in [-1, 1].

        Args:
            tick: called once a photo; may raise to cancel.
        """
        o, generator = self.objective, torch.Generator().manual_seed(10_007)
        values = []
        for photo in self.photos.split(1):
            tick()
            with torch.autocast(o.device.type, torch.bfloat16):
                out = o.paint(o.logits(o.content(photo.to(o.device)), style).float()).flip(-1)
                boxes = reward.crop_boxes(VIEWS, out.shape[-1], generator, least=0.6)
                views = torch.cat([reward.take_crops(out, [box], o.clip.visual.input_resolution) for box in boxes])
                values.append(reward.cosine(o.see(views), o.style).mean())
        return float(torch.stack(values).mean())

    def check(self, style: Style, step: int, kl: float, tick: Callable[[], None] = lambda: None) -> float:
        """Score the style and keep it if it is the best that is within the KL budget -> the score."""
        score, budget = processes().told(self.score(style, tick)), self.objective.config.kl_budget
        self.stale += 1
        if math.isnan(self.first_score):
            self.first_score = score
        if score > self.best_score and not (budget and kl > budget):
            self.best = {name: tensor.detach().clone() for name, tensor in style.tensors.items()}
            self.best_score, self.best_step, self.stale = score, step, 0
        return score

    def state(self) -> dict[str, Any]:
        names = ("best", "best_score", "best_step", "first_score", "stale")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def verdict(rows: list[dict[str, str]]) -> str | None:
    """A warning where the reward rose over a run and the held-out score did not, from the rows of its curve."""
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
            "CLIP rather than the eye. Use fewer steps, more photos, a lower learning rate or a higher kl_weight"
        )
    return None
