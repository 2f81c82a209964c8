"""Lists of prompts to train on: one prompt a line, in families.

    [watercolour]
    a watercolour painting | watercolour
    a blue watercolour painting | watercolour | blue

    [mosaic, held out]
    a mosaic of small tiles

After the prompt may follow the style (registry.py) whose filter makes pairs for it, spelled with - or _, and the tone
(filters/tones.py) of the filtered photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..settings import shortened
from .filters.tones import TONES
from .registry import STYLES, style_name

PROMPTS = Path(__file__).with_name("prompts.txt")  # the shipped list
HELD_OUT = ", held out"


@dataclass(frozen=True)
class Prompt:
    """One line of a list.

    Attributes:
        text: the prompt itself.
        family: heading that it stands under; the prompt itself without one.
        filter: style whose filter makes pairs for it, or "".
        tone: of the filtered photo (of the photo, without a filter), or "".
        held_out: never trained on, like its whole family.
    """

    text: str
    family: str
    filter: str = ""
    tone: str = ""
    held_out: bool = False

    @property
    def paired(self) -> bool:
        """Whether pairs can be made for it."""
        return bool(self.filter or self.tone)


def read_prompts(path: str | Path = PROMPTS) -> list[Prompt]:
    """Read a list of prompts, held-out ones included.

    Raises:
        ValueError: the file cannot be read, has no prompt or one prompt twice, or a line names an unknown filter or tone.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # with or without a byte order mark
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
        made = style_name(made)
        if made not in ("", *STYLES) or tone not in ("", *TONES) or any(more):
            raise ValueError(
                f"{path}, line {number}: {shortened(line)!r} is not `prompt | filter | tone`; filters: {', '.join(STYLES)}; "
                f"tones: {', '.join(TONES)}"
            )
        if not text or text in prompts:
            raise ValueError(f"{path}, line {number}: {'the list already has this prompt' if text else 'the prompt is missing'}")
        prompts[text] = Prompt(text, family or text, made, tone, held_out)
    if not prompts:
        raise ValueError(f"{path} has no prompt: write one prompt a line")
    return list(prompts.values())
