"""Options of a translation: how strong the style is, where it goes, and how tokens are chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .sampling import DEFAULT, Sampling
from .style import Style


@dataclass(frozen=True)
class MaskedStyle:
    """A style for a part of the picture."""

    style: Style
    mask: Tensor  # (B or 1, H, W) in [0, 1]: the share of the style at each place; any H and W, stretched over the picture
    feather: float = 0.0  # px of the picture over which the mask's edges become soft, to either side


@dataclass(frozen=True)
class TranslateOptions:
    """How content tokens are translated. The defaults give the style as it was tuned, everywhere.

    Raises:
        ValueError: an option is out of range.
    """

    strength: float = 1.0  # of the style's changes: 0 is the base translator's picture, 1 the style, up to 2 they are larger
    mask: Tensor | None = None  # (B or 1, H, W) in [0, 1], multiplies strength place by place; None: 1 everywhere
    feather: float = 0.0  # px of the picture over which the mask's edges become soft, to either side
    regions: tuple[MaskedStyle, ...] = ()  # laid over the style, a later one over those before; each costs one more pass
    sampling: Sampling = DEFAULT  # how tokens are chosen; the noise is the same for every picture
    steady: float = 0.0  # for frames of a video, in order: the share of the frame before that is kept where the photo is the same

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:
            raise ValueError(
                f"strength {self.strength} is out of range: 0 (no style) to 2 (exaggerated), 1 is the style as tuned"
            )
        if not 0 <= self.steady <= 1:
            raise ValueError(f"steady {self.steady} is out of range: 0 (each frame by itself) to 1 (what did not change stays)")

        for mask, feather in self.masks:
            if not 0 <= feather < math.inf:
                raise ValueError(f"feather {feather} is not possible: give 0 px for hard edges, or more")
            if mask is not None and not mask.isfinite().all():
                raise ValueError("a mask has NaN or infinite values: check where it was made")

    @property
    def masks(self) -> list[tuple[Tensor | None, float]]:
        """(mask, feather) of the picture's style and of every region."""
        return [(self.mask, self.feather), *((region.mask, region.feather) for region in self.regions)]


DEFAULT_OPTIONS = TranslateOptions()
