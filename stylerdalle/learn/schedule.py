"""What a step of training takes: its learning rate, its samples, its random numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch

log = logging.getLogger(__name__)


def in_steps(config: Any, count: int) -> Any:
    """A config (of pretraining or tuning) with the steps of its epochs over `count` pictures. Raises ValueError below 0."""
    if config.epochs < 0:
        raise ValueError(f"epochs {config.epochs}: need 0 (steps count) or more")
    return replace(config, steps=math.ceil(config.epochs * count / config.batch)) if config.epochs else config


T = TypeVar("T")


def chosen(count: int, size: int, step: int, seed: int, rng: np.random.Generator, epochs: float = 0) -> np.ndarray:
    """Which of `count` samples step `step` takes (size): drawn, or, where `epochs` are counted, each once in an epoch."""
    if not epochs:
        return rng.integers(count, size=size)
    places = range(step * size, (step + 1) * size)
    return np.array([_order(count, seed, place // count)[place % count] for place in places])


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 77]).permutation(count)


def generator(*key: int) -> torch.Generator:
    """One that is a function of the key alone: (seed, step, number of the photo)."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def batches(make: Callable[[int, np.random.Generator], T], seed: int, first: int, last: int, ahead: int = 4) -> Iterator[T]:
    """Yield make(step, rng) for steps first..last-1, prepared a few steps ahead in one background thread."""
    with ThreadPoolExecutor(1) as pool:
        futures = [
            pool.submit(make, step, np.random.default_rng([seed, step])) for step in range(first, min(first + ahead, last))
        ]
        for step in range(first, last):
            value = futures.pop(0).result()
            if step + ahead < last:
                futures.append(pool.submit(make, step + ahead, np.random.default_rng([seed, step + ahead])))
            yield value


DECAYS = ("cosine", "linear")  # of the learning rate
log = logging.getLogger(__name__)


def schedule(step: int, steps: int, warm: int = 100, floor: float = 0.02, decay: str = "cosine") -> float:
    """Linear warm-up, then half a cosine down to `floor`, or (decay "linear") a straight line to 0 after the last step."""
    if step < warm:
        return (step + 1) / warm
    if decay == "linear":
        return (steps - step) / max(1, steps - warm)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
