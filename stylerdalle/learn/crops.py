"""Crops of pictures for training, and batches of them as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, zoom: tuple[float, float] = (1.0, 1.0), flip: bool = True
) -> np.ndarray:
    """A square crop at a random place -> uint8 (size, size, 3).

    Args:
        zoom: limits of the random zoom, output px per source px; 1 is not resampled. The picture's shortest side limits it too.
        flip: mirror every second crop.
    """
    width, height = image.size
    side = size / np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1])))
    side = min(side, width, height)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    if side == size:  # no resampling: pixels stay as they are
        x, y = int(x), int(y)
        image = image.crop((x, y, x + size, y + size))
    else:
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def aligned_crop(image: Image.Image, size: int, rng: np.random.Generator, unit: int = 8) -> np.ndarray:
    """A square crop at a random multiple of `unit` px, neither resampled nor mirrored -> uint8 (size, size, 3)."""
    x, y = (unit * int(rng.integers((side - size) // unit + 1)) for side in image.size)
    return np.asarray(image.crop((x, y, x + size, y + size)))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The paper's evaluation crop: the shortest side resized to `size` px (Lanczos), then the centre square."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.LANCZOS)
    x, y = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((x, y, x + size, y + size))


def at_least(image: Image.Image, side: int) -> Image.Image:
    """The picture, enlarged (bicubic) if its shortest side is under `side` px."""
    scale = side / min(image.size)
    if scale <= 1:
        return image
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def to_tensor(crops: Sequence[np.ndarray]) -> torch.Tensor:
    """Crops, uint8 (H, W, 3) each -> float32 (B, 3, H, W) in [0, 1], channels_last."""
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)  # (B, 3, H, W), channels_last strides
    return batch.float().div_(255)
