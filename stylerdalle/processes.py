"""Several processes that share one piece of work, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import os


def rank_and_world() -> tuple[int, int]:
    """(which process this is, how many there are), from RANK and WORLD_SIZE; (0, 1) for a process alone.

    Raises:
        ValueError: they are not such numbers.
    """
    given = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world = map(int, given)
        if not 0 <= rank < world:
            raise ValueError
    except ValueError as error:
        raise ValueError(f"RANK {given[0]!r} of WORLD_SIZE {given[1]!r} cannot be: need 0 <= RANK < WORLD_SIZE") from error
    return rank, world
