"""Made pairs for the warm start of a style: a photo, and the same photo in the style by other means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..pictures import over_white, read_picture, to_image
from ..texture import Texture
from ..tokenizers import ImageTokenizer
from .data import SUFFIXES, Picture, at_least, random_crop, to_tensor
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
    return _stack(photos), _stack(made), torch.from_numpy(np.stack(places))


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


def read_pairs(folder: str | Path, size: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """`count` random crops of the pairs in FOLDER/photos/NAME and FOLDER/styled/NAME, as `make_pairs`; their places on a texture
    are chance, for nothing is known of one.

    Raises:
        ValueError: a folder or a twin is missing, or the two pictures of a pair differ in shape.
    """
    sides = [_files(Path(folder) / part) for part in ("photos", "styled")]
    if alone := sorted(set(sides[0]) ^ set(sides[1])):
        verb = "is" if len(alone) == 1 else "are"
        raise ValueError(f"{folder}: {', '.join(alone[:5])} {verb} in only one of photos and styled")
    pairs = [_pair(path, sides[1][name], size) for name, path in sides[0].items()]
    photos, styled = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        pair = pairs[rng.integers(len(pairs))]
        state = rng.bit_generator.state
        photos.append(random_crop(pair[0], size, rng, (0.4, 1.3)))
        rng.bit_generator.state = state  # the same place, zoom and mirroring
        styled.append(random_crop(pair[1], size, rng, (0.4, 1.3)))
    places = np.random.default_rng([seed, count]).integers(1 << 16, size=(count, 2))
    return _stack(photos), _stack(styled), torch.from_numpy(places)


def _files(folder: Path) -> dict[str, Path]:
    """Name without suffix -> picture."""
    found = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix.lower() in SUFFIXES}
    if not found:
        raise ValueError(f"{folder} holds no picture: pairs are FOLDER/photos/NAME.jpg and FOLDER/styled/NAME.jpg")
    return found


def _pair(photo: Path, styled: Path, size: int) -> tuple[Image.Image, Image.Image]:
    first, second = (to_image(over_white(*read_picture(path))) for path in (photo, styled))
    if abs(first.width / first.height - second.width / second.height) > 0.02 * first.width / first.height:
        raise ValueError(
            f"{photo} is {first.width} x {first.height} px and {styled} {second.width} x {second.height}: "
            "the two pictures of a pair must have the same shape"
        )
    first = at_least(first, size)
    return first, second if second.size == first.size else second.resize(first.size, Image.Resampling.LANCZOS)


def _stack(crops: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
