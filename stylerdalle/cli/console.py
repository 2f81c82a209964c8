"""What the command line prints besides results: progress bars, and one line per problem."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..distributed import prints_first, rank_and_world
from ..progress import Progress

# Commands that may run in several processes (docs/scale.md). True: the processes form one group; False: each works by itself.
SEVERAL = {"stylize": True, "tune": True, "pretrain": True, "prepare": False}


def unexpected(error: Exception) -> str:
    """The message for an error that is not about the input."""
    text = str(error)
    if "out of memory" in text.lower() or "can't allocate memory" in text or isinstance(error, MemoryError):
        return "there is not enough memory: use a smaller --size, or --device cpu"
    return f"{type(error).__name__}: {text or 'no more is known'} (add --debug to see where it happened)"


def report(command: str, problem: Exception | str, before: str = "") -> None:
    """Print one line on stderr. Of several processes with the same line, one prints it."""
    line = f"stylerdalle {command}: {' '.join(str(problem).split())}"
    if not SEVERAL.get(command, True) or prints_first(line):
        print(before + line, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on stderr if that is a terminal. The block gets a function to call with (done, total)."""
    from tqdm import tqdm  # slow to import, and --help shows no bar

    disable = rank_and_world()[0] > 0 or None  # None: disabled where stderr is no terminal
    with tqdm(desc=title, disable=disable, leave=False, bar_format="{desc}: {percentage:3.0f}% |{bar}| {remaining}") as line:

        def progress(done: int, total: int) -> None:
            line.total, line.n = total, done
            line.refresh()

        yield progress


@contextmanager
def beside_bar() -> Iterator[None]:
    """A block that prints while a bar may be on the screen: the bar is cleared first and drawn again after."""
    from tqdm import tqdm

    with tqdm.external_write_mode(sys.stderr):
        yield
