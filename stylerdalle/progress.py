"""How far a piece of work is: what callers are told, and how parts of it add up."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]


def of_all(progress: Progress, index: int, count: int, done: int, total: int) -> None:
    """Tell what is done of one of `count` equal parts as what is done of all."""
    progress(index * total + done, count * total)
