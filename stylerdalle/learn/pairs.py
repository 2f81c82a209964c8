"""Made pairs that a user brings: photos, and the same pictures in a style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..images.files import over_white, read_picture, to_image
from ..images.folders import is_junk
from ..images.kinds import PHOTO_SUFFIXES
from ..storage import composed
from .crops import at_least, random_crop


def read_pairs(folder: str | Path, size: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops of the pairs FOLDER/photos/NAME and FOLDER/styled/NAME.

    Args:
        size: side of the crops, px.
        count: crops.

    Returns:
        Photos and styled pictures, uint8 (count, 3, size, size) each; and random places on a texture, long (count, 2): the
        pictures of a user have none.

    Raises:
        ValueError: a folder or a picture of a pair is missing, or the two pictures of a pair differ in shape.
    """
    sides = [_files(Path(folder) / part) for part in ("photos", "styled")]
    if alone := sorted(set(sides[0]) ^ set(sides[1])):
        verb = "is" if len(alone) == 1 else "are"
        raise ValueError(f"{folder}: {', '.join(alone[:5])} {verb} in only one of photos and styled")
    pairs = [_pair(path, sides[1][name], size) for name, path in sides[0].items()]
    photos, styled = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        pair = pairs[int(rng.integers(len(pairs)))]
        state = rng.bit_generator.state
        photos.append(random_crop(pair[0], size, rng, (0.4, 1.3)))
        rng.bit_generator.state = state  # the same place, zoom and mirroring
        styled.append(random_crop(pair[1], size, rng, (0.4, 1.3)))
    places = np.random.default_rng([seed, count]).integers(1 << 16, size=(count, 2))
    return stack_crops(photos), stack_crops(styled), torch.from_numpy(places)


def _files(folder: Path) -> dict[str, Path]:
    """Name without suffix -> picture."""
    listed = sorted(folder.glob("*"))
    found = {composed(p.stem): p for p in listed if p.suffix.lower() in PHOTO_SUFFIXES and not is_junk(p.name)}
    if not found:
        raise ValueError(f"{folder} holds no picture: pairs are FOLDER/photos/NAME.jpg and FOLDER/styled/NAME.jpg")
    return found


def _pair(photo: Path, styled: Path, size: int) -> tuple[Image.Image, Image.Image]:
    """The two pictures in one size, whose shortest side is `size` px or more."""
    first, second = (to_image(over_white(*read_picture(path))) for path in (photo, styled))
    if abs(first.width / first.height - second.width / second.height) > 0.02 * first.width / first.height:
        raise ValueError(
            f"{photo} is {first.width} x {first.height} px and {styled} {second.width} x {second.height}: "
            "the two pictures of a pair must have the same shape"
        )
    first = at_least(first, size)
    return first, second if second.size == first.size else second.resize(first.size, Image.Resampling.LANCZOS)


def stack_crops(crops: list[np.ndarray]) -> Tensor:
    """uint8 (S, S, 3) each -> uint8 (N, 3, S, S)."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
