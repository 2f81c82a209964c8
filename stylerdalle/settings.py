"""Fields of a config dataclass with the help that the command line shows for them."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

T = TypeVar("T")


def setting(default: T, help: str) -> T:
    """A dataclass field with a default and one line of help in its metadata: `steps: int = setting(80, "of the reward")`."""
    field: T = dataclasses.field(default=default, metadata={"help": help})
    return field
