"""Pictures to train on: WebDataset tar shards or plain folders, kept encoded in memory and decoded when a batch needs them.

A shard's sample is KEY.webp (or .jpg, .png) and, beside it, KEY.json with any of
{caption: [...], style, content, kind, source, licence}. A plain folder has pictures only.
Batches are a function of (seed, step) alone, so a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps

from ..pictures import DAMAGE

T = TypeVar("T")
SUFFIXES = (".webp", ".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Picture:
    """One encoded picture and what is known of it."""

    key: str
    data: bytes  # the encoded file
    captions: tuple[str, ...] = ()
    style: str = ""
    content: str = ""
    kind: str = "photo"  # photo | art | graphic
    source: str = ""

    def open(self) -> Image.Image:
        """Decode to upright RGB; transparent parts become white. Raises ValueError where the picture is damaged."""
        try:
            return _decode(self.data)
        except DAMAGE as error:
            raise ValueError(f"{self.key} is damaged or cut off ({error}): leave it out") from error

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, read without decoding the pixels."""
        return Image.open(io.BytesIO(self.data)).size


def decode(data: bytes) -> Image.Image:
    """An encoded picture as upright RGB; transparent parts become white. Raises one of DAMAGE where it cannot be read."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


_decode = lru_cache(maxsize=2048)(decode)


def read_pictures(paths: Sequence[str | Path]) -> list[Picture]:
    """All pictures of the given shards, folders and files, in a fixed order.

    Raises:
        ValueError: a path does not exist or holds no picture.
    """
    from .inputs import pictures

    return list(pictures(paths))


def key_of(name: str) -> tuple[str, str]:
    """(key, suffix) of a shard's file, as in WebDataset: all before the first dot, so that KEY.photo.webp belongs to KEY too."""
    folder, _, name = name.rpartition("/")
    key, _, suffix = name.partition(".")
    return f"{folder}/{key}" if folder else key, suffix


def split(pictures: Sequence[Picture], share: float = 0.01) -> tuple[list[Picture], list[Picture]]:
    """(training, validation): a picture belongs to validation by the hash of its key, whatever else is read beside it."""
    train, valid = [], []
    for picture in pictures:
        (valid if zlib.crc32(picture.key.encode()) % 10_000 < share * 10_000 else train).append(picture)
    return train, valid


def chosen(count: int, size: int, step: int, seed: int, rng: np.random.Generator, epochs: float = 0) -> np.ndarray:
    """Which of `count` samples step `step` takes (size): drawn, or, where `epochs` are counted, each once in an epoch."""
    if not epochs:
        return rng.integers(count, size=size)
    places = range(step * size, (step + 1) * size)
    return np.array([_order(count, seed, place // count)[place % count] for place in places])


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 77]).permutation(count)


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, zoom: tuple[float, float] = (1.0, 1.0), flip: bool = True
) -> np.ndarray:
    """A square of `size` px taken at a random place and a random zoom (output px per source px) -> uint8 (size, size, 3)."""
    width, height = image.size
    side = size / np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1])))
    side = min(side, width, height)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    if side == size:  # no resampling: whole pixels stay as they are
        x, y = int(x), int(y)
        image = image.crop((x, y, x + size, y + size))
    else:
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def aligned_crop(image: Image.Image, size: int, rng: np.random.Generator, unit: int = 8) -> np.ndarray:
    """A square of `size` px at a random multiple of `unit` px, neither resampled nor mirrored -> uint8 (size, size, 3)."""
    x, y = (unit * int(rng.integers((side - size) // unit + 1)) for side in image.size)
    return np.asarray(image.crop((x, y, x + size, y + size)))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Shortest side resized to `size` (Lanczos), then the centre square: the paper's evaluation crop."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.LANCZOS)
    x, y = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((x, y, x + size, y + size))


def at_least(image: Image.Image, side: int) -> Image.Image:
    """The picture, enlarged (bicubic) where its shortest side is under `side` px."""
    scale = side / min(image.size)
    if scale <= 1:
        return image
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def to_tensor(crops: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 (H, W, 3) each -> float32 (B, 3, H, W) in [0, 1], channels_last."""
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)  # (B, 3, H, W), channels_last strides
    return batch.float().div_(255)


def generator(*key: int) -> torch.Generator:
    """One that is a function of the key alone: (seed, step, number of the photo)."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def batches(make: Callable[[int, np.random.Generator], T], seed: int, first: int, last: int, ahead: int = 4) -> Iterator[T]:
    """Yield make(step, rng) for steps first..last-1, prepared a few steps ahead in one background thread."""
    with ThreadPoolExecutor(1) as pool:
        futures = [
            pool.submit(make, step, np.random.default_rng([seed, step])) for step in range(first, min(first + ahead, last))
        ]
        for step in range(first, last):
            value = futures.pop(0).result()
            if step + ahead < last:
                futures.append(pool.submit(make, step + ahead, np.random.default_rng([seed, step + ahead])))
            yield value
