"""What the polish (polish.py) sees: crops of the real works of every style, crops of photos, and contents as tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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

    with ThreadPoolExecutor(8) as pool:
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
    """The labelled pictures of art of each of the styles that has some."""
    labels = {name: MANNERS[name].labels for name in styles if name in MANNERS}
    found = {name: [p for p in pictures if p.style in labels[name] and p.kind == "art"] for name in labels}
    return {name: some for name, some in found.items() if some}


def banks(
    works: Mapping[str, Sequence[Picture]], size: int, count: int, zoom: tuple[float, float], seed: int, device: torch.device
) -> dict[str, Bank]:
    """A bank of `count` crops for each style, in grey where its works are in black and white."""
    found = {name: bank(pictures, size, count, zoom, seed, device) for name, pictures in works.items()}
    grey = [name for name in found if name in MANNERS and MANNERS[name].grey]
    return found | {name: Bank(luma(found[name].crops.float()).round().byte().expand_as(found[name].crops)) for name in grey}


def all_classes(
    art: Sequence[Picture],
    photos: Sequence[Picture],
    size: int,
    count: int,
    zoom: tuple[float, float],
    labelled_zoom: tuple[float, float],
    seed: int,
    device: torch.device,
) -> Iterator[tuple[str, Bank]]:
    """Names and crops, one after the other: all styles that have works, photos, and every other label of many pictures."""
    works = works_by_style(art, list(MANNERS))
    labelled = labelled_by_style(art, list(works))
    for name, some in works.items():
        made = banks({name: some}, size, count, zoom, seed, device)[name]
        if name in labelled:
            made = made.joined(bank(labelled[name], size, count, labelled_zoom, seed, device))
        yield name, made
    yield PHOTO, bank(photos, size, 2 * count, zoom, seed, device)
    known = {label for name in works for label in MANNERS[name].labels}
    for label, many in Counter(p.style for p in art if p.kind != PHOTO).items():
        if label and label not in known and many >= LEAST:
            yield label, bank([p for p in art if p.style == label], size, count, labelled_zoom, seed, device)
