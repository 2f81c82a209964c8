"""Exemplars: pictures of the style, and a reward for being near to them in the space of the feature network.

CLIP's reward follows words and teaches colours. Exemplars teach brush marks: the statistics of features (features/distances.py)
are compared at the scale of the marks. The mean of many exemplars has no distinct marks, so a picture is compared with its
nearest exemplar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ..features import FeatureNetwork, content_distance, style_distance, style_statistics
from ..images.files import resized


class Exemplars:
    """The reward for pictures that are near to exemplars of a style.

    Args:
        network: frozen, on the device of the pictures to compare.
        pictures: of the style, (1, 3, H, W) in [0, 1] each, of any sizes.
        size: short side at which they are compared, px. Tuning paints pictures of `TuneConfig.size` px.
        weights: one a picture, above 0; None: all 1. The distance from a picture is divided by its weight, so that one of less
            weight counts only where it is clearly the nearest.

    Raises:
        ValueError: no pictures, or weights that are not above 0, one a picture.
    """

    def __init__(self, network: FeatureNetwork, pictures: Sequence[Tensor], size: int, weights: Sequence[float] | None = None):
        if not pictures:
            raise ValueError("there are no exemplars: give at least one picture of the style")
        self.network = network
        self.weights = [1.0] * len(pictures) if weights is None else list(weights)
        if len(self.weights) != len(pictures) or min(self.weights) <= 0:
            raise ValueError(f"weights {self.weights} of {len(pictures)} exemplars: give one above 0 for each")
        pixels = b"".join((255 * picture).round().byte().cpu().numpy().tobytes() for picture in pictures)
        known = f"{size}" if set(self.weights) == {1.0} else f"{size} {self.weights}"
        self.sha256 = hashlib.sha256(pixels + known.encode()).hexdigest()  # tells one run's exemplars from another's
        device = next(network.parameters()).device
        self.pictures = [resized(picture.float(), size).to(device) for picture in pictures]
        with torch.no_grad():
            self.statistics = [style_statistics(network(picture)) for picture in self.pictures]

    def distances(self, activations: Sequence[Tensor], photo: Tensor) -> tuple[Tensor, Tensor]:
        """How far k pictures are from the nearest exemplar in style, and from the photo (1, 3, S, S) in content, from their
        activations: (k) each, differentiable."""
        with torch.no_grad():
            reference = [level.expand(len(activations[0]), -1, -1, -1) for level in self.network(photo)]
        return self.nearest(activations), content_distance(activations, reference)

    def nearest(self, activations: Sequence[Tensor]) -> Tensor:
        """The style distance of k pictures from the nearest exemplar, from their activations: (k)."""
        found = style_statistics(activations)
        each = zip(self.statistics, self.weights, strict=True)
        return torch.stack([style_distance(found, statistics) / weight for statistics, weight in each]).amin(0)
