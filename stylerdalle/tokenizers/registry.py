"""The tokenizers, by the `type` in a model file's metadata. To add one, write a file beside this one and add a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .dvae import DVAE
from .protocol import ImageTokenizer
from .vqgan import VQGAN

# type -> a function from the sizes in the metadata (`ImageTokenizer.arch`) to a tokenizer with random weights
TOKENIZERS: dict[str, Callable[[Mapping[str, Any]], ImageTokenizer]] = {
    "dvae": DVAE.of,
    "vqgan": VQGAN.of,
}


def build(arch: Mapping[str, Any]) -> ImageTokenizer:
    """A tokenizer with random weights, of the type and sizes that `ImageTokenizer.arch` gave.

    Raises:
        ValueError: an unknown type, or impossible sizes.
        KeyError, TypeError: a size is missing or not known.
    """
    kind = arch["type"]
    if kind not in TOKENIZERS:
        raise ValueError(f"type {kind!r} is not known: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[kind](arch)
