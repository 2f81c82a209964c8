"""Critics for the polish (polish.py): is a picture a real work of its style? They look at marks, not at what is shown.

Most of them stand on the layers of EfficientNet-lite0, frozen, at four depths (Sauer et al. 2021, arXiv 2111.01007): such critics
know pictures from the start, so a few minutes of training are enough. One more looks at the pixels, for what is finer than the
first layer. Each scores every place, and its score has a part that depends on the style (Miyato and Koyama 2018, arXiv
1802.05637).

Letters: B pictures of H x W px; C channels; K styles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..clip.statistics import LITE0, StatisticsTower, StyleClipShape
from ..features.critic import Head, hinge
from .efficientnet import efficientnet_lite0, fill_layers

DEPTHS = (1, 3, 5, 11)  # blocks of EfficientNet-lite0, whose outputs have 1/2, 1/4, 1/8 and 1/16 of the side


class Depths(nn.Module):
    """EfficientNet-lite0's outputs at DEPTHS, frozen, each channel of about deviation 1."""

    def __init__(self, tower: StatisticsTower):
        super().__init__()
        self.conv1, self.blocks = tower.conv1, tower.blocks[: DEPTHS[-1]]
        self.scales: list[Tensor] = []
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    @classmethod
    def public(cls) -> Depths:
        """With the public ImageNet weights. Raises ValueError where the packages that hold them are missing."""
        tower = StatisticsTower(StyleClipShape(read=DEPTHS))
        fill_layers(tower, efficientnet_lite0())
        return cls(tower)

    @property
    def widths(self) -> tuple[int, ...]:
        """C at each depth."""
        return tuple(LITE0[depth - 1][2] for depth in DEPTHS)

    def look(self, images: Tensor) -> list[Tensor]:
        """As `forward`, the channels not scaled."""
        x = ((255 * images - 127) / 128).contiguous(memory_format=torch.channels_last)
        x, found = F.relu6(self.conv1(x)), []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in DEPTHS:
                found.append(x)
        return found

    @torch.no_grad()
    def measure(self, images: Tensor) -> None:
        """Measure the channels' deviations on pictures (B, 3, H, W) in [0, 1]."""
        self.scales = [1 / (x.float().std((0, 2, 3), keepdim=True) + 1e-3) for x in self.look(images)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> features at each depth, (B, C, H/2^k, W/2^k)."""
        found = self.look(images)
        return [x * scale.to(x.dtype) for x, scale in zip(found, self.scales, strict=True)] if self.scales else found


class Pixels(nn.Module):
    """Pictures (B, 3, H, W) -> features of small patches, (B, C, H/4, W/4)."""

    def __init__(self, width: int = 48):
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(3, width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
        )
        self.width = 2 * width

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, C, H / 4, W / 4)."""
        with torch.autocast(images.device.type, enabled=False):  # as in Head
            features: Tensor = self.layers(2 * images.float() - 1)
        return features


class Critic(nn.Module):
    """The critics together. `depths` is frozen and not a part of the state.

    Args:
        styles: K.
    """

    def __init__(self, depths: Depths, styles: int):
        super().__init__()
        self._depths = [depths]  # in a list: no parameters of ours
        self.pixels = Pixels()
        self.heads = nn.ModuleList([Head(width, styles) for width in (*depths.widths, self.pixels.width)])
        self.to(memory_format=torch.channels_last)

    def look(self, images: Tensor) -> list[Tensor]:
        """What the frozen layers see of pictures (B, 3, H, W), and the pictures themselves last."""
        return [*self._depths[0](images), images]

    def forward(self, seen: Sequence[Tensor], style: Tensor) -> Tensor:
        """What `look` gave, and styles, long (B,) -> each critic's mean score of each picture, (heads, B)."""
        return torch.stack([scores.mean((1, 2)) for scores in self.places(seen, style)])

    def places(self, seen: Sequence[Tensor], style: Tensor) -> list[Tensor]:
        """The same as the scores of all places, (B, h, w) of each critic."""
        inputs = [*seen[:-1], self.pixels(seen[-1])]
        return [head(x, style) for head, x in zip(self.heads, inputs, strict=True)]

    def hinge(self, real: Sequence[Tensor], real_style: Tensor, made: Sequence[Tensor], made_style: Tensor) -> Tensor:
        """The critics' own loss: real scores above 1, made ones below -1, place by place; a scalar."""
        return hinge(self.places(real, real_style), self.places(made, made_style))
