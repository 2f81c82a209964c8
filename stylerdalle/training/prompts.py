"""Lists of style prompts to train on: one a line, in families.

    [watercolour]
    a watercolour painting | watercolour
    a blue watercolour painting | watercolour | blue

    [mosaic, held out]
    a mosaic of small tiles

After the prompt may stand the filter that makes pairs for it (filters/) and a tone laid over them (filters/tones.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .filters import FILTERS
from .filters.tones import TONES

PROMPTS = Path(__file__).with_name("prompts.txt")  # those of the box
HELD_OUT = ", held out"


@dataclass(frozen=True)
class Prompt:
    text: str
    family: str
    filter: str = ""
    tone: str = ""
    held_out: bool = False  # with its whole family

    @property
    def paired(self) -> bool:
        return bool(self.filter or self.tone)


def read_prompts(path: str | Path = PROMPTS) -> list[Prompt]:
    """The prompts of a list, held-out ones included.

    Raises:
        ValueError: no such file, no prompts, one twice, or an unknown filter or tone, with the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a list of prompts ({error}): give a text file, one prompt a line") from error
    prompts: dict[str, Prompt] = {}
    family, held_out = "", False
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            family, held_out = line[1:-1].removesuffix(HELD_OUT), line[1:-1].endswith(HELD_OUT)
            continue
        text, made, tone, *more = (part.strip() for part in (line + "||").split("|"))
        if made not in ("", *FILTERS) or tone not in ("", *TONES) or any(more):
            raise ValueError(
                f"{path}, line {number}: {line!r} is not `prompt | filter | tone`; filters: {', '.join(FILTERS)}; "
                f"tones: {', '.join(TONES)}"
            )
        if not text or text in prompts:
            raise ValueError(f"{path}, line {number}: {'this prompt stands above already' if text else 'there is no prompt'}")
        prompts[text] = Prompt(text, family or text, made, tone, held_out)
    if not prompts:
        raise ValueError(f"{path} holds no prompt: write one a line")
    return list(prompts.values())
