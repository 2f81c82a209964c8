"""The steps of a tuning run: what a batch is, and the gradient that it gives the adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..distributed import processes
from ..learn.crops import at_least, centre_crop, random_crop, to_tensor
from ..learn.loop import Numbers
from ..learn.pictures import Picture
from ..learn.schedule import generator, learning_rate, sample_indices
from ..translator.style import Style
from .guard import Guard
from .methods import METHODS
from .objective import Objective

Pairs = tuple[Tensor, Tensor, Tensor]  # photos and made pictures, uint8 (N, 3, S, S); places on the texture, long (N, 2)


@dataclass(frozen=True)
class TuneState:
    """What a callback sees after each step."""

    step: int  # steps done
    steps: int  # of the run
    reward: float | None  # mean of the batch; None in the warm start
    held_out: float | None  # held-out score; None after a step without a check
    kl: float | None  # nats a token; None in the warm start
    loss: float
    preview: Tensor | None = None  # the first photo in the style, (3, S, S) in [0, 1]


class Tuning:
    """What the steps of a run do: `Loop` calls the methods.

    Args:
        style: being tuned; its tensors require gradients.
        photos: to tune on.
        tick: called several times a step; may raise to cancel.
        callback: called once a step; the same.
    """

    def __init__(
        self,
        objective: Objective,
        style: Style,
        photos: Sequence[Picture],
        pairs: Pairs | None,
        guard: Guard,
        tick: Callable[[], None],
        callback: Callable[[TuneState], None] | None,
    ):
        self.objective, self.style, self.photos, self.guard = objective, style, photos, guard
        self.tick, self.callback = tick, callback
        self.config, self.method, self.team = objective.config, METHODS[objective.config.method], processes()
        self.steps = self.config.pairs_steps + self.config.steps
        self.content = self.target = self.places = torch.empty(0)  # of the made pairs
        if pairs:
            self.content, self.target = objective.encode_pairs(*pairs[:2])
            self.places = pairs[2]
        self.baseline = self._next_baseline = 0.0
        self.state = TuneState(0, self.steps, None, None, None, 0.0)  # after the last step

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        c = self.config
        if step < c.pairs_steps:
            return c.pairs_lr * learning_rate(step, c.pairs_steps, warm=10, floor=0.1)
        return c.lr * self.method.rate(step - c.pairs_steps, c.steps, c.warm, c.decay)

    def batch(self, step: int, rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor]:
        """(photos (B, 3, S, S), their captions, indices of made pairs); no photos in the warm start."""
        c = self.config
        size = c.batch if step >= c.pairs_steps else 0
        indices = sample_indices(len(self.photos), size, step - c.pairs_steps, c.seed, rng, c.epochs)
        chosen = [self.photos[i] for i in indices.tolist()]
        crops = [self._crop(p.open(), rng) for p in chosen]
        captions = [p.captions[rng.integers(len(p.captions))] if p.captions else "" for p in chosen]
        which = rng.integers(max(1, len(self.content)), size=c.pairs_batch)
        return to_tensor(crops) if crops else torch.empty(0), captions, torch.from_numpy(which)

    def _crop(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        size = self.config.size
        if not self.config.augment:
            return np.asarray(centre_crop(image, size))
        return random_crop(at_least(image, size), size, rng, (0.5, 1.5))

    def learn(self, step: int, batch: tuple[Tensor, list[str], Tensor]) -> Numbers:
        """Add the gradient of a step, summed over the processes -> its loss, reward and KL. Collective."""
        (photos, captions, which), c, team = batch, self.config, self.team
        loss, outcome, cross = 0.0, None, torch.zeros(1)
        if step >= c.pairs_steps:
            generators = [generator(c.seed, step, k) for k in team.shard(range(len(photos)))]
            texts = [self.objective.text(caption) for caption in team.shard(captions)]
            own = team.shard(photos).to(self.objective.device)
            outcome = self.objective.step(own, texts, self.style, generators, self.baseline, self.tick, team, len(photos))
            loss = outcome.loss
            self._teach_critics(step, outcome.pictures, len(photos))
        weight = c.pairs_weight if outcome else 1.0
        if weight and len(rows := team.shard(which)):
            self.tick()
            with self.objective.autocast():
                value = self.objective.pairs_loss(self.content[rows], self.target[rows], self.places[rows], self.style)
            weighted = weight * len(rows) / len(which) * value
            weighted.backward()
            cross += weighted.item()
        team.all_reduce_gradients(self.style.tensors.values(), cross)
        loss += cross.item()
        self.state = TuneState(step + 1, self.steps, None, None, None, loss)
        if outcome:
            preview = outcome.pictures[0].cpu() if len(outcome.pictures) else None
            self.state = replace(self.state, reward=outcome.reward, kl=outcome.kl, preview=preview)
            self._next_baseline = outcome.baseline
        return {"loss": loss, "reward": self.state.reward, "kl": self.state.kl}

    def _teach_critics(self, step: int, pictures: Tensor, count: int) -> None:
        """Add the gradients of the critics, if there are any, from pictures of this process among `count`. Collective."""
        if critics := self.objective.critics:
            if len(pictures):
                critics.learn(pictures, generator(self.config.seed, step, count), len(pictures) / count)
            self.team.all_reduce_gradients(critics.parameters())

    def after(self, step: int, numbers: Numbers) -> Numbers:
        """Check the held-out score where it is due. Collective."""
        self.baseline = self._next_baseline
        c, done, held_out = self.config, step + 1, None
        rewarded = done - c.pairs_steps  # steps done with the reward
        if rewarded == 0 or (rewarded > 0 and (rewarded % c.check_every == 0 or done == self.steps)):
            held_out = self.guard.check(self.style, done, self.state.kl or 0.0, self.tick)
        self.state = replace(self.state, held_out=held_out)
        return {"held_out": held_out}

    def stop(self) -> str:
        """Why the run should end, or ""."""
        c = self.config
        if c.kl_budget and (self.state.kl or 0.0) > c.kl_budget:
            return "KL budget"
        if c.patience and self.guard.stale >= c.patience:
            return "no better held-out score"
        return ""

    def tell(self, done: int, numbers: Numbers) -> None:
        """Call the callback with the state after a step."""
        if self.callback:
            self.callback(self.state)

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self.baseline}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        self.baseline = self._next_baseline = state_dict["baseline"]
