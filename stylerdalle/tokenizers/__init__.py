"""Image tokenizers: pictures to discrete tokens and back."""

from .protocol import ImageTokenizer
from .tokens import Tokens, joined

__all__ = ["ImageTokenizer", "Tokens", "joined"]
