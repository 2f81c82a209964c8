"""The learning rate of a step, its sample indices and its random numbers: all functions of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import Field, replace
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch

Batch = TypeVar("Batch")


class Lengths(Protocol):
    """A config dataclass that gives the length of a run in steps or in epochs."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def steps(self) -> int: ...

    @property
    def epochs(self) -> float: ...

    @property
    def batch(self) -> int: ...


Config = TypeVar("Config", bound=Lengths)


def learning_rate(
    step: int, steps: int, warm: int = 100, floor: float = 0.02, decay: str = "cosine", passed: float = 0.0
) -> float:
    """The share of the peak learning rate at `step` of `steps`, in [0, 1].

    It rises linearly over `warm` steps. Then it follows half a cosine to `floor`, or with decay "linear" a straight line that
    would reach 0 one step after the last.

    Args:
        passed: the share of its time that a run with a time limit has used, in [0, 1] (`Loop.passed`): the rate falls as if at
            least this share of the steps were done.
    """
    if step < warm:
        return (step + 1) / warm
    if decay == "linear":
        return min((steps - step) / max(1, steps - warm), 1 - passed)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(max(math.pi * (step - warm) / max(1, steps - warm), math.pi * passed)))


def epochs_to_steps(config: Config, count: int) -> Config:
    """The config, its steps set to those of its epochs over `count` pictures; unchanged where epochs is 0.

    Raises:
        ValueError: epochs is below 0.
    """
    if config.epochs < 0:
        raise ValueError(f"epochs {config.epochs}: need 0 (steps count) or more")
    return replace(config, steps=math.ceil(config.epochs * count / config.batch)) if config.epochs else config


def sample_indices(count: int, size: int, step: int, seed: int, rng: np.random.Generator, epochs: float = 0) -> np.ndarray:
    """Indices (size) into `count` samples for a step: random from `rng`, or the next of each epoch's permutation if `epochs`."""
    if not epochs:
        return rng.integers(count, size=size)
    return np.array(in_rounds(count, size, step, seed, 77))


def in_rounds(count: int, size: int, step: int, seed: int, *salt: int) -> list[int]:
    """The next `size` indices into `count` items for a step. Each round takes all items once, in a random order of its own.

    Args:
        salt: further numbers for the random order, so that two uses of one seed differ.
    """
    places = range(step * size, (step + 1) * size) if count else range(0)
    return [int(_permutation(count, seed, place // count, *salt)[place % count]) for place in places]


def in_turn(names: Sequence[str], step: int, count: int, seed: int) -> list[str]:
    """The `count` names of a step, in the order of the round that its first name belongs to; other rounds have other orders.

    Unlike `in_rounds`, a step of at most as many names as there are has no name twice.
    """
    order = np.random.default_rng([seed, step * count // len(names)]).permutation(len(names))
    return [names[order[(step * count + i) % len(names)]] for i in range(count)]


def hidden_places(shape: Sequence[int], whole: float, rng: np.random.Generator) -> torch.Tensor:
    """Which tokens of windows a translator does not see, bool; their share follows MaskGIT's cosine schedule (arXiv 2202.04200).

    Args:
        shape: (windows, places of each).
        whole: share of the windows in which it sees all.
    """
    share = np.cos(rng.uniform(0, np.pi / 2, (shape[0], 1))) * (rng.random((shape[0], 1)) >= whole)
    return torch.from_numpy(rng.random(tuple(shape)) < share)


@lru_cache(maxsize=8)
def _permutation(count: int, *key: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(count)


def generator(*key: int) -> torch.Generator:
    """A torch generator seeded by a key of whole numbers, such as (seed, step, photo)."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def batches(
    make: Callable[[int, np.random.Generator], Batch], seed: int, first: int, last: int, ahead: int = 4
) -> Iterator[Batch]:
    """Yield make(step, rng) for steps first to last - 1, each with the generator of (seed, step).

    One background thread prepares them, up to `ahead` steps before they are needed.
    """
    with ThreadPoolExecutor(1) as pool:
        futures = [
            pool.submit(make, step, np.random.default_rng([seed, step])) for step in range(first, min(first + ahead, last))
        ]
        for step in range(first, last):
            value = futures.pop(0).result()
            if step + ahead < last:
                futures.append(pool.submit(make, step + ahead, np.random.default_rng([seed, step + ahead])))
            yield value
