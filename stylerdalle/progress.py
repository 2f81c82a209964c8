"""Progress of long work: what a caller is told, and how the parts of the work add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Progress = Callable[[int, int], None]  # called with (done, total); may raise to cancel the work


def split(progress: Progress | None, weights: Sequence[int]) -> list[Progress | None]:
    """One callback for each part of a piece of work, in the order in which the parts are done.

    A part reports (done, total) of its own. `progress` hears it as (done, total) of the whole, of which part i is the share
    weights[i] / sum(weights).
    """
    if progress is None:
        return [None] * len(weights)
    return [_part(progress, sum(weights[:i]), weight, sum(weights)) for i, weight in enumerate(weights)]


def _part(progress: Progress, before: int, weight: int, whole: int) -> Progress:
    def tell(done: int, total: int) -> None:
        progress(before * total + weight * done, whole * total)

    return tell
