"""What the polish (polish.py) sees: crops of the real works of every style, crops of photos, and contents as tokens."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..images.colour import luma
from ..learn.crops import at_least, random_crop
from ..learn.pictures import Picture
from .teacher_styles import MANNERS

PHOTO = "photo"  # the class of photos
LEAST = 100  # labelled pictures that make a class of their own, for a label that no style has
GRAPHICS = {"comic": ("cartoon",), "pixel-art": ("pixel art",)}  # styles without works, and the labels of pictures like them
# styles that paint a blue sky blue, if not in the same blue
NATURAL = ("comic", "impressionism", "pastel", "pixel-art", "turner", "van-gogh", "watercolour")


@dataclass(frozen=True)
class Bank:
    """Crops made once, kept on the device in 8 bits."""

    crops: Tensor  # uint8 (N, 3, S, S)

    def joined(self, other: Bank) -> Bank:
        """The crops of both."""
        return Bank(torch.cat([self.crops, other.crops]))

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Some of the crops: (count, 3, S, S) in [0, 1]."""
        rows = torch.from_numpy(rng.integers(len(self.crops), size=count)).to(self.crops.device)
        return self.crops[rows].float() / 255


def bank(pictures: Sequence[Picture], size: int, count: int, zoom: tuple[float, float], seed: int, device: torch.device) -> Bank:
    """`count` random crops of pictures, each picture as often as the others.

    Args:
        zoom: px of the crop per px of the picture.
    """

    def crop(number: int) -> np.ndarray:
        image = at_least(pictures[number % len(pictures)].open(), size)
        return random_crop(image, size, np.random.default_rng([seed, number]), zoom)

    with ThreadPoolExecutor(os.cpu_count() or 8) as pool:
        crops = np.stack([*pool.map(crop, range(count))])
    return Bank(torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous().to(device))


def works_by_style(pictures: Sequence[Picture], styles: Sequence[str]) -> dict[str, list[Picture]]:
    """The works of each of the styles that has some.

    Raises:
        ValueError: none of the styles has a work.
    """
    keys = {name: MANNERS[name].works for name in styles if name in MANNERS}
    found = {name: [p for p in pictures if p.key.rpartition("/")[2].startswith(keys[name])] for name in keys}
    found = {name: works for name, works in found.items() if works}
    if not found:
        raise ValueError(f"{len(pictures)} works, none of the styles {', '.join(styles)}: give the shards of exemplars")
    return found


def labelled_by_style(pictures: Sequence[Picture], styles: Sequence[str]) -> dict[str, list[Picture]]:
    """The labelled pictures of each of the styles that has some: of art, or of graphics for those of GRAPHICS."""
    labels = {name: ("art", MANNERS[name].labels) for name in styles if name in MANNERS}
    labels |= {name: ("graphic", GRAPHICS[name]) for name in styles if name in GRAPHICS}
    found = {name: [p for p in pictures if p.style in some and p.kind == kind] for name, (kind, some) in labels.items()}
    return {name: some for name, some in found.items() if some}


def banks(
    works: Mapping[str, Sequence[Picture]], size: int, count: int, zoom: tuple[float, float], seed: int, device: torch.device
) -> dict[str, Bank]:
    """A bank of `count` crops for each style, in grey where its works are in black and white."""
    found = {name: bank(pictures, size, count, zoom, seed, device) for name, pictures in works.items()}
    grey = [name for name in found if name in MANNERS and MANNERS[name].grey]
    return found | {name: Bank(luma(found[name].crops.float()).round().byte().expand_as(found[name].crops)) for name in grey}


def other_labels(art: Sequence[Picture]) -> dict[str, list[Picture]]:
    """The pictures of every label of many that no style has."""
    known = {label for manner in MANNERS.values() for label in manner.labels} | {x for some in GRAPHICS.values() for x in some}
    counts = Counter(p.style for p in art if p.kind != PHOTO and p.style and p.style not in known)
    return {label: [p for p in art if p.style == label] for label, many in counts.items() if many >= LEAST}
