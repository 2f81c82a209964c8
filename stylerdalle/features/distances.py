"""How far pictures are apart, from the activations of a feature network. Pure functions.

Style is compared by statistics of the activations of several levels over all places: means and products of channels
(Gram matrices: Gatys et al., arXiv 1508.06576; means and deviations alone: Huang and Belongie, arXiv 1703.06868). Content is
compared by the activations of one level place by place, by the direction of each place's vector (Kolkin et al., arXiv
1904.12785).

Letters: B pictures, C channels, H, W places of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CONTENT_LEVEL = 3  # of the network's levels, the one that content is compared at: 8 px a place


@dataclass(frozen=True)
class StyleStatistics:
    """Statistics of activations over all places of pictures, one tensor a level.

    Attributes:
        means: (B, C) each.
        grams: (B, C, C) each, mean products of two channels.
    """

    means: tuple[Tensor, ...]
    grams: tuple[Tensor, ...]

    def mean(self) -> StyleStatistics:
        """The statistics of the pictures taken together, (1, ...) each: of several exemplars of a style."""
        return StyleStatistics(
            tuple(t.mean(0, keepdim=True) for t in self.means), tuple(t.mean(0, keepdim=True) for t in self.grams)
        )


def smoothed(activations: Tensor, smoothing: float) -> Tensor:
    """(B, C, H, W) -> the same shape: softmax over the channels at every place, which tames the few channels whose peaks
    dominate a Gram matrix (Wang et al., arXiv 2104.05623). 0 leaves the activations as they are."""
    if smoothing == 0:
        return activations
    return activations.shape[1] * (smoothing * activations).softmax(1)


def style_statistics(activations: Sequence[Tensor], smoothing: float = 0.0) -> StyleStatistics:
    """Statistics of pictures from their activations, (B, C_k, H_k, W_k) a level, in float32."""
    means, grams = [], []
    for level in activations:
        with torch.autocast(level.device.type, enabled=False):  # sums over all places need float32
            flat = smoothed(level.float(), smoothing).flatten(2)  # (B, C, N)
            means.append(flat.mean(-1))
            grams.append(flat @ flat.transpose(1, 2) / flat.shape[-1])
    return StyleStatistics(tuple(means), tuple(grams))


def style_distance(first: StyleStatistics, second: StyleStatistics, weights: Sequence[float] | None = None) -> Tensor:
    """How far two styles are apart -> (B), 0 for the same statistics; one of them may be of a single picture.

    Per level the squared difference of the Gram matrices relative to their sizes, |G - G'|^2 / (|G| |G'|), plus the same of the
    means; levels count by `weights`, alike where none are given.

    Raises:
        ValueError: another number of weights than levels.
    """
    shares = [1.0] * len(first.grams) if weights is None else list(weights)
    if len(shares) != len(first.grams):
        raise ValueError(f"{len(shares)} weights for {len(first.grams)} levels: give one a level")
    parts = [
        share * (relative(gram, other_gram) + relative(mean, other_mean))
        for share, gram, other_gram, mean, other_mean in zip(
            shares, first.grams, second.grams, first.means, second.means, strict=True
        )
    ]
    return torch.stack(parts).sum(0) / sum(shares)


def relative(first: Tensor, second: Tensor) -> Tensor:
    """|x - y|^2 / (|x| |y|) of tensors (B, ...) -> (B)."""
    first, second = torch.broadcast_tensors(first, second)
    first, second = first.flatten(1), second.flatten(1)
    return (first - second).square().sum(1) / (first.norm(dim=1) * second.norm(dim=1)).clamp(min=1e-12)


def content_distance(first: Sequence[Tensor], second: Sequence[Tensor], level: int = CONTENT_LEVEL) -> Tensor:
    """How far two pictures of one size are apart in what they show -> (B) in [0, 2]: the mean over places of 1 - cos of their
    activations at a level. A change of contrast or of overall brightness costs little."""
    a, b = first[level].float(), second[level].float()
    a, b = (x - x.mean((2, 3), keepdim=True) for x in (a, b))
    return (1 - F.cosine_similarity(a, b, dim=1)).mean((1, 2))
