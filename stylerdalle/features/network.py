"""A small plain convolutional network whose activations describe pictures: 3x3 convolutions, ReLU and 2x2 pooling, as in VGG
(Simonyan and Zisserman, arXiv 1409.1556).

It has no batch norm, no depthwise convolution and no strided convolution: gradients through those leave checkerboards in the
picture, and a style reward is a gradient with respect to pixels. Pooling is the mean, which is smoother than the maximum
(Gatys et al., arXiv 1508.06576, section 3). training/features.py is how it is learnt.

Letters: B pictures, H, W pixels, C channels of a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureShape:
    """Sizes of a network: level k has `widths[k]` channels, `depths[k]` convolutions and 1/2^k of the picture's side."""

    widths: tuple[int, ...] = (24, 48, 80, 112, 144)
    depths: tuple[int, ...] = (1, 2, 2, 2, 1)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.widths, *self.depths) < 1:
            raise ValueError(f"widths {self.widths} and depths {self.depths}: need one of each, 1 or more, for every level")


class FeatureNetwork(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> activations of every level, (B, C_k, H / 2^k, W / 2^k), the finest first."""

    def __init__(self, shape: FeatureShape | None = None):
        super().__init__()
        self.shape = shape or FeatureShape()
        inputs = (3, *self.shape.widths)
        self.levels = nn.ModuleList(
            level(inputs[k], width, depth, pooled=k > 0)
            for k, (width, depth) in enumerate(zip(self.shape.widths, self.shape.depths, strict=True))
        )

    @property
    def smallest(self) -> int:
        """Px that a side of a picture needs at least, for the coarsest level to have one place."""
        return int(2 ** (len(self.shape.widths) - 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> one (B, C_k, H / 2^k, W / 2^k) a level, after its last ReLU.

        Raises:
            ValueError: images are not (B, 3, H, W), or a side is too small.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < self.smallest:
            raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W), both sides {self.smallest} px or more")
        x = 2 * images.to(next(self.parameters()).dtype) - 1
        activations = []
        for part in self.levels:
            x = part(x)
            activations.append(x)
        return activations


def level(inputs: int, width: int, depth: int, pooled: bool) -> nn.Sequential:
    """Convolutions of one level. Edges are replicated: zeros would frame every picture, and its statistics count the frame."""
    layers: list[nn.Module] = [nn.AvgPool2d(2)] if pooled else []
    for i in range(depth):
        layers += [nn.Conv2d(width if i else inputs, width, 3, padding=1, padding_mode="replicate"), nn.ReLU()]
    return nn.Sequential(*layers)


@torch.no_grad()
def balance(network: FeatureNetwork, images: Tensor) -> None:
    """Rescale the weights so that every channel's mean activation over images (B, 3, H, W) is 1. The network's information is
    unchanged, since ReLU commutes with positive scales; levels become comparable (as in the normalised VGG of Gatys et al.,
    arXiv 1508.06576)."""
    x = 2 * images - 1
    scale = torch.ones(3, device=images.device)  # by which the inputs of the next convolution were multiplied
    for layer in (layer for part in network.levels for layer in part.children()):
        if isinstance(layer, nn.Conv2d):
            layer.weight.div_(scale.view(1, -1, 1, 1))
            scale = layer(x).relu().mean((0, 2, 3)).clamp(min=1e-3).reciprocal()
            layer.weight.mul_(scale.view(-1, 1, 1, 1))
            if layer.bias is not None:
                layer.bias.mul_(scale)
        x = layer(x)
