"""Pictures to train on: WebDataset tar shards or plain folders, kept encoded in memory and decoded when a batch needs them.

A shard's sample is KEY.webp (or .jpg, .png) and, beside it, KEY.json with any of
{caption: [...], style, content, kind, source, licence}. A plain folder has pictures only.
Batches are a function of (seed, step) alone, so a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageOps

from ..images.files import READ_ERRORS

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
        except READ_ERRORS as error:
            raise ValueError(f"{self.key} is damaged or cut off ({error}): leave it out") from error

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, read without decoding the pixels."""
        return Image.open(io.BytesIO(self.data)).size


def decode(data: bytes) -> Image.Image:
    """An encoded picture as upright RGB; transparent parts become white. Raises one of READ_ERRORS where it cannot be read."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


_decode = lru_cache(maxsize=2048)(decode)


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
