"""Image tokenizers: pictures to discrete tokens and back, at any size."""

from .protocol import ImageTokenizer
from .tokens import Tokens, joined

__all__ = ["ImageTokenizer", "Tokens", "joined"]
