"""Foreign weights to our files, and where they are fetched from."""

from .registry import KINDS, Converted, convert, origin

__all__ = ["KINDS", "Converted", "convert", "origin"]
