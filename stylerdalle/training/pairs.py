"""Made pairs: a photo, and the same photo through the filter of a style. Styles learn their marks from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.pairs import stack_crops
from ..learn.pictures import Picture
from ..tokenizers.protocol import ImageTokenizer
from ..translator.texture import Texture
from .filters.marks import PATTERN_SIDE
from .registry import find


def make_pairs(
    pictures: Sequence[Picture], name: str, size: int, count: int, seed: int = 0, unit: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of photos, and the same crops through the filter of style `name`.

    Crops have the size of the translator's window. All random numbers of the filter are those of its pattern: the marks follow
    from the picture and the pattern under it, so a translator can learn them crisply. Marks at random places would teach it
    only their mean.

    Args:
        size: side of the crops, px.
        count: crops.
        unit: px of a token.

    Returns:
        Photos and filtered photos, uint8 (count, 3, size, size) each; and the place of each crop on the pattern,
        long (count, 2), (y, x) in tokens.

    Raises:
        ValueError: an unknown style.
    """
    recipe = find(name)
    photos, made, places = [], [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        image = at_least(pictures[int(rng.integers(len(pictures)))].open(), size)
        photos.append(random_crop(image, size, rng, (0.4, 1.3)))
        places.append(rng.integers(PATTERN_SIDE // unit, size=2))
        y, x = unit * places[-1]
        made.append(recipe.apply(photos[-1], np.random.default_rng(seed), (int(y), int(x))))
    return stack_crops(photos), stack_crops(made), torch.from_numpy(np.stack(places))


@torch.no_grad()
def coded_texture(tokenizer: ImageTokenizer, name: str) -> Texture | None:
    """The texture of a style: its pattern as tokens. None for a style without a pattern."""
    picture = find(name).picture()
    if picture is None:
        return None
    halo = 8 if tokenizer.halo is None else tokenizer.halo
    margin = halo * tokenizer.downsample
    planes = F.pad(to_tensor([picture]), (margin,) * 4, mode="circular")  # so that it repeats without a seam
    inner = slice(halo, -halo)
    device = next(tokenizer.parameters()).device
    return Texture(tokenizer.encode(planes.to(device))[:, inner, inner].cpu(), torch.ones(1))
