"""Exemplars: pictures of the style, and a reward for being near to them in the space of the feature network.

CLIP's reward follows words and teaches colours. Exemplars teach brush marks: the statistics of features (features/distances.py)
are compared at the scale of the marks. The mean of many exemplars has no distinct marks, so a picture is compared with its
nearest exemplar.

All pictures have much in common, and statistics ask for all that the exemplars have. A recogniser (features/recogniser.py) that
has seen works of other styles and photos asks for what is the exemplars' own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..clip.statistics import channel_statistics
from ..features import FeatureNetwork, content_distance, style_distance, style_statistics
from ..features.recogniser import Recogniser
from ..images.files import resized
from ..images.resample import interpolated

ZOOM = (0.75, 1.25)  # of crops
CROPS = 2  # of each of the others that the recogniser learns from
OWN = 96  # of the exemplars together; every class counts alike
KIN = 0.1  # share of the others that is left out, the nearest ones: they may be of the same style


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
        self.pixels = [pixels_of(picture) for picture in pictures]
        known = f"{size}" if set(self.weights) == {1.0} else f"{size} {self.weights}"
        self.sha256 = hashlib.sha256(
            b"".join(self.pixels) + known.encode()
        ).hexdigest()  # tells one run's exemplars from another's
        device = next(network.parameters()).device
        self.size = size
        self.recogniser: Recogniser | None = None
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

    @torch.no_grad()
    def learn_from(self, others: Iterable[Tensor], size: int, seed: int = 0) -> None:
        """Learn to tell the exemplars from other pictures: sets `recogniser`, whose first class is the exemplars.

        Args:
            others: works of other styles and photos, (1, 3, H, W) in [0, 1] each, of any sizes. The exemplars themselves are left
                out, and the nearest ones, as their kin. With fewer than two the recogniser stays unset.
            size: of the crops that are compared, px.
        """
        generator = torch.Generator().manual_seed(seed)
        hashed, found = hashlib.sha256(f"{self.sha256} {size}".encode()), []
        for picture in others:
            if (pixels := pixels_of(picture)) in self.pixels:
                continue
            hashed.update(pixels)
            shown = resized(picture.float(), self.size).to(self.pictures[0].device)
            activations = self.network(torch.cat([crop(shown, size, generator) for _ in range(CROPS)]))
            found.append((float(self.nearest(activations).mean()), channel_statistics(activations)))
        if len(found) < 2:
            return
        found.sort(key=lambda pair: pair[0])
        others_seen = torch.cat([seen for _, seen in found[int(KIN * len(found)) :]])
        crops = [crop(self.pictures[i % len(self.pictures)], size, generator) for i in range(OWN)]
        own_seen = torch.cat([channel_statistics(self.network(some)) for some in torch.cat(crops).split(16)])
        recogniser = Recogniser(["exemplars", "others"], self.network.shape.widths)
        with torch.enable_grad():
            recogniser.fit([own_seen, others_seen], seed)
        self.recogniser, self.sha256 = recogniser, hashed.hexdigest()

    def surprise(self, activations: Sequence[Tensor]) -> Tensor:
        """How far k pictures are from being taken for exemplars by the recogniser, from their activations: the cross-entropy in
        nats, (k); 0 without a recogniser."""
        if self.recogniser is None:
            return activations[0].new_zeros(len(activations[0]), dtype=torch.float32)
        with torch.autocast(activations[0].device.type, enabled=False):
            return -self.recogniser.scores(channel_statistics([level.float() for level in activations])).log_softmax(1)[:, 0]


def pixels_of(picture: Tensor) -> bytes:
    """A picture in [0, 1] in 8 bits, to tell it from others."""
    return (255 * picture).round().byte().cpu().numpy().tobytes()


def crop(picture: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A crop of a picture (1, 3, H, W) at a random place and zoom, mirrored or not -> (1, 3, size, size)."""
    chance = torch.rand(4, generator=generator).tolist()
    height, width = picture.shape[-2:]
    side = min(height, width, round(size / (ZOOM[0] + chance[0] * (ZOOM[1] - ZOOM[0]))))
    y, x = int(chance[1] * (height - side + 1)), int(chance[2] * (width - side + 1))
    part = interpolated(picture[..., y : y + side, x : x + side], (size, size)).clamp(0, 1)
    return part.flip(-1) if chance[3] < 0.5 else part
