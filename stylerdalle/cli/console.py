"""What the command line shows: progress bars, and one line for a problem."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..distributed import prints_first, rank_and_world
from ..progress import Progress

# commands that several processes share (docs/scale.md): whether these must meet, or each does its part by itself
SEVERAL = {"stylize": True, "tune": True, "pretrain": True, "prepare": False}
log = logging.getLogger(__name__)


def unexpected(error: Exception) -> str:
    """A sentence for an error that is not about the input."""
    text = str(error)
    if "out of memory" in text.lower() or "can't allocate memory" in text or isinstance(error, MemoryError):
        return "there is not enough memory: use a smaller --size, or --device cpu"
    return f"{type(error).__name__}: {text or 'no more is known'} (add --debug for where it happened)"


def report(command: str, problem: Exception | str, before: str = "") -> None:
    """One line on stderr, once from all processes that have the same to say."""
    line = f"stylerdalle {command}: {' '.join(str(problem).split())}"
    if not SEVERAL.get(command, True) or prints_first(line):
        print(before + line, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on stderr where that is a terminal; calls of its value are (done, total)."""
    quiet = rank_and_world()[0] > 0 or None  # None: where stderr is no terminal
    with tqdm(desc=title, disable=quiet, leave=False, bar_format="{desc}: {percentage:3.0f}% |{bar}| {remaining}") as line:

        def progress(done: int, total: int) -> None:
            line.total, line.n = total, done
            line.refresh()

        yield progress
