"""Settings without torch: values shared with the command line, and fields of config dataclasses with their help."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

T = TypeVar("T")
SOFTNESS = 0.5  # of mixtures: logits are divided by it, so a token half a unit below the likeliest has e^-1 of its share
SEEDS = 2**64  # seeds are 0 to SEEDS - 1, the range of torch.Generator


def setting(default: T, help: str) -> T:
    """A dataclass field with a default and one line of help in its metadata: `steps: int = setting(80, "of the reward")`."""
    field: T = dataclasses.field(default=default, metadata={"help": help})
    return field
