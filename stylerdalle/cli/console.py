"""What the command line prints besides results: progress bars, and one line per problem."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..distributed import prints_first, rank_and_world
from ..progress import Progress

# Commands that may run in several processes (docs/scale.md). True: the processes form one group; False: each works by itself.
SEVERAL = {"stylize": True, "tune": True, "pretrain": True, "prepare": False}


def printable(text: object) -> str:
    """A text for the terminal: characters that control it, or turn its direction, as escapes such as \\x1b. Blanks stay."""
    return "".join(c if c.isprintable() or c in " \n\t\u00a0\u3000" else c.encode("unicode_escape").decode() for c in str(text))


def say(text: object) -> None:
    """Print a result on stdout."""
    print(printable(text), flush=True)


class Formatter(logging.Formatter):
    """Log lines without control characters of file names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_output(level: int) -> None:
    """Start the log, and let stdout and stderr print every name: what their encoding lacks becomes an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level, force=True)


def unexpected(error: Exception) -> str:
    """The message for an error that is not about the input."""
    from ..device import OutOfMemory, out_of_memory  # torch, which --help does not load

    text = str(error)
    if isinstance(error, OutOfMemory):
        return text
    if out_of_memory(error):
        return "there is not enough memory: use a smaller --size, or --device cpu"
    return f"{type(error).__name__}: {text or 'no more is known'} (add --debug to see where it happened)"


def report(command: str, problem: Exception | str, before: str = "") -> None:
    """Print one line on stderr. Of several processes with the same line, one prints it."""
    line = f"stylerdalle {command}: {printable(' '.join(str(problem).split()))}"
    if not SEVERAL.get(command, True) or prints_first(line):
        print(before + line, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on stderr if that is a terminal. The block gets a function to call with (done, total)."""
    from tqdm import tqdm  # slow to import, and --help shows no bar

    disable = rank_and_world()[0] > 0 or None  # None: disabled where stderr is no terminal
    with tqdm(
        desc=printable(title), disable=disable, leave=False, bar_format="{desc}: {percentage:3.0f}% |{bar}| {remaining}"
    ) as line:

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
