"""Made pairs for the warm start of a style: a photo, and the same photo in the style by other means."""

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
from .filters import apply, texture
from .filters.textures import SIDE


def make_pairs(
    pictures: Sequence[Picture], name: str, size: int, count: int, seed: int = 0, unit: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """`count` random photo crops and the same through a filter, uint8 (count, 3, size, size) each, and where they lie on the
    filter's texture, long (count, 2), (y, x) in tokens of `unit` px.

    Crops have the size of the translator's window, and all chance of the filter is its texture's: marks then follow from the
    picture and the texture under it, and a translator can learn them crisply, where chance would leave it only their average.
    """
    photos, made, places = [], [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        image = at_least(pictures[rng.integers(len(pictures))].open(), size)
        photos.append(random_crop(image, size, rng, (0.4, 1.3)))
        places.append(rng.integers(SIDE // unit, size=2))
        y, x = unit * places[-1]
        made.append(apply(name, photos[-1], np.random.default_rng(seed), (int(y), int(x))))
    return stack_crops(photos), stack_crops(made), torch.from_numpy(np.stack(places))


@torch.no_grad()
def coded_texture(tokenizer: ImageTokenizer, name: str) -> Texture | None:
    """A filter's texture in a tokenizer's tokens; None where the filter has none."""
    picture = texture(name)
    if picture is None:
        return None
    halo = 8 if tokenizer.halo is None else tokenizer.halo
    margin = halo * tokenizer.downsample
    planes = F.pad(to_tensor([picture]), (margin,) * 4, mode="circular")  # so that it repeats without a seam
    inner = slice(halo, -halo)
    return Texture(tokenizer.encode(planes)[:, inner, inner], torch.ones(1))
