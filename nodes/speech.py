"""What a node says: its warnings and what it understood, for the node's text in the page and for the history."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..stylerdalle import Style, storage

ROOM = storage.__name__.rpartition(".")[0]  # the library's name here, to which all its loggers belong


class Ear(logging.Handler):
    """Keeps the warnings of the thread that made it, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.own = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.thread == self.own and line not in self.lines:
            self.lines.append(line)


@contextmanager
def heard() -> Iterator[list[str]]:
    """The library's warnings while the block runs, in a list that fills."""
    ear, logger = Ear(), logging.getLogger(ROOM)
    logger.addHandler(ear)
    try:
        yield ear.lines
    finally:
        logger.removeHandler(ear)


def understood(style: Style) -> str:
    """One line: the style that was used, and for a prompt how near it is to the prompts trained on."""
    near, name = style.metadata.get("near"), style.prompt or style.name  # near: only in styles made for any prompt
    own = f"{style.name}: " if style.name and style.prompt and style.name != style.prompt else ""
    return f"style: {own}{name}" + (f" ({near})" if near else "")


def warned(lines: list[str]) -> list[str]:
    """Warnings as lines of a node's text."""
    return [f"Note: {line}" for line in lines]


def spoken(text: list[str], **values: list[Any]) -> dict[str, list[Any]]:
    """A node's `ui`: text for its face, and values for programs that read the history."""
    return {"text": text, **values}
