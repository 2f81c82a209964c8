"""The pack's socket types and what travels on them.

TOKENIZER, TRANSLATOR and REWARD all carry the `Bundle` that Load opened: a tokenizer must know its translator's upscale, a
translator its tokenizer's embedding. TOKENS carries `Tokens`, STYLE a `Style`.
"""

from typing import Any, TypeVar

from comfy_api.latest import io

TOKENIZER = io.Custom("STYLERDALLE_TOKENIZER")
TRANSLATOR = io.Custom("STYLERDALLE_TRANSLATOR")
REWARD = io.Custom("STYLERDALLE_REWARD")
TOKENS = io.Custom("STYLERDALLE_TOKENS")
STYLE = io.Custom("STYLERDALLE_STYLE")

CATEGORY = "StylerDALLE"
T = TypeVar("T")


def expect(value: Any, kind: type[T], socket: str) -> T:
    """The value of a socket. Raises ValueError where it is not ours: ComfyUI compares the names of types only."""
    if not isinstance(value, kind):
        raise ValueError(f"{socket} got a {type(value).__name__}: connect the {socket} output of a StylerDALLE node")
    return value
