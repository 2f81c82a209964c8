"""Settings without torch: values shared with the command line, and fields of config dataclasses with their help."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SOFTNESS = 0.5  # of mixtures: logits are divided by it, so a token half a unit below the likeliest has e^-1 of its share
LINES = 0.6  # of the photo's lines in a stylised picture (images/lines.py); more keeps more of the photo and less of the style
# with upscale 2, which content token place (y, x) of the decoder begins with, of n x n: repeated is (y // 2, x // 2), the paper's
# text; tiled is (y // 2, x mod n), what the authors' code computes
DECODER_INPUTS = ("repeated", "tiled")
DECAYS = ("cosine", "linear")  # of the learning rate
SEEDS = 2**64  # seeds are 0 to SEEDS - 1, the range of torch.Generator
HOSTED = __package__ != "stylerdalle"  # part of another program's package, such as ComfyUI's: the command is not on its path
ROOT = Path(__file__).resolve().parent.parent


def check_finite(config: Any) -> None:
    """Raises ValueError if a number of a config dataclass is NaN or infinite."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} is {value}: give a number")


def check_decoder_input(name: str) -> None:
    """Raises ValueError for a name that is not in DECODER_INPUTS."""
    if name not in DECODER_INPUTS:
        raise ValueError(
            f"decoder_input {name!r} is not known: repeated is the paper's text, tiled is what the authors' code computes"
        )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The text `(did you mean 'X'?)` after a blank, for a word that is nearly a known one, ignoring case; else empty."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), names, 1, 0.75)
    return f" (did you mean {names[near[0]]!r}?)" if near and near[0] != word.casefold() else ""


def command(text: str, hosted: bool = HOSTED) -> str:
    """A command of this package for a message, as the reader can run it: `stylerdalle TEXT`, or in a host such as ComfyUI
    `python -m stylerdalle TEXT` with the folder to run it in."""
    return f"`python -m stylerdalle {text}` (with ComfyUI's Python, in {ROOT})" if hosted else f"`stylerdalle {text}`"


def setting(default: T, help: str) -> T:
    """A dataclass field with a default and one line of help in its metadata: `steps: int = setting(80, "of the reward")`."""
    field: T = dataclasses.field(default=default, metadata={"help": help})
    return field


def shortened(text: object, most: int = 80) -> str:
    """A text of a user or a file as a part of a message: in one line, cut after `most` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[:most]}..."
