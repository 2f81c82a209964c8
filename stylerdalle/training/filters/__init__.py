"""Filters: from a photo to the same photo in a hand-made approximation of an art style, pixel for pixel in place.

The pairs (photo, filtered photo) teach small models what colour statistics do not show: lines, hatching, blocks, strokes,
cells and dots. Marks have fixed sizes in pixels (lines 2-4, blocks 8, strokes 9-17, panes 34), so that they survive tokens of
8x8 pixels. They lie where the style's pattern has them (patterns.py), so that a translator that is shown the pattern can
predict them. Nothing is learned here, and no artist's method is claimed: operators.py names the papers whose operators are
simplified.

A filter is a function (image, generator, marks) -> image, of uint8 (H, W, 3) pictures with sides of 32 pixels or more;
`marks` is the part of the style's pattern that lies under the picture. ../registry.py says which style has which filter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .marks import Marks

Filter = Callable[[np.ndarray, np.random.Generator, Marks], np.ndarray]
