"""A critic of features: is what it sees of real pictures? Trained beside what paints (Goodfellow et al., arXiv 1406.2661), on the
layers of a frozen network (Sauer et al., arXiv 2111.01007): such a critic knows pictures from the start, so minutes are enough.

Letters: B pictures; C channels of a layer, h x w its places; K styles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Head(nn.Module):
    """Features (B, C, h, w) -> scores of about half as many places a side, (B, h', w').

    Args:
        inputs: C.
        styles: K, of a critic of several styles: its score has a part that depends on the style (Miyato and Koyama,
            arXiv 1802.05637). 0: one style.
    """

    def __init__(self, inputs: int, styles: int = 0, width: int = 64):
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(inputs, width, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(width, width, 4, stride=2, padding=1))
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))
        self.style = spectral_norm(nn.Embedding(styles, width)) if styles else None

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Features (B, C, h, w), and styles, long (B,), where there are several -> scores (B, h // 2, w // 2)."""
        with torch.autocast(x.device.type, enabled=False):  # spectral norms need float32
            x = F.leaky_relu(self.second(F.leaky_relu(self.first(x.float()), 0.2)), 0.2)
            scores: Tensor = self.score(x)[:, 0]
            if self.style is not None and style is not None:
                scores = scores + (x * self.style(style)[:, :, None, None]).sum(1)
        return scores


def hinge(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """The critics' own loss, a scalar: scores of real places above 1, of made ones below -1; one tensor of scores a critic."""
    return torch.stack([F.relu(1 - a).mean() + F.relu(1 + b).mean() for a, b in zip(real, made, strict=True)]).mean()
