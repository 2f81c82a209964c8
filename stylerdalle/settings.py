"""Settings of a config dataclass: a field's default, and the help that the command line shows for it."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

T = TypeVar("T")


def setting(default: T, help: str) -> T:
    """A dataclass field with a default and, in its metadata, one line of help: `steps: int = setting(80, "of the reward")`."""
    field: T = dataclasses.field(default=default, metadata={"help": help})
    return field
