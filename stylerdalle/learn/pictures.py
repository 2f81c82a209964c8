"""Pictures to train on, from WebDataset tar shards or plain folders. They are kept encoded, and decoded when a batch needs them.

A sample of a shard is KEY.webp (or .jpg, .png) and, beside it, KEY.json with any of
{caption: [...], style, content, kind, source, licence}. A plain folder has pictures only.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageOps

from ..images.files import READ_ERRORS

SAMPLE_SUFFIXES = (".webp", ".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Picture:
    """One encoded picture and what is known of it."""

    key: str
    data: bytes  # the encoded file
    captions: tuple[str, ...] = ()
    style: str = ""
    content: str = ""
    kind: str = "photo"  # photo, wallpaper, art, graphic or made
    source: str = ""

    def open(self) -> Image.Image:
        """The picture as upright RGB, transparent parts white.

        Raises:
            ValueError: it is damaged.
        """
        try:
            return _decode(self.data)
        except READ_ERRORS as error:
            raise ValueError(f"{self.key} is damaged or cut off ({error}): leave it out") from error

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, read without decoding."""
        return Image.open(io.BytesIO(self.data)).size


def decode_picture(data: bytes) -> Image.Image:
    """An encoded picture as upright RGB, transparent parts white.

    Raises:
        one of READ_ERRORS: it cannot be read.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


_decode = lru_cache(maxsize=2048)(decode_picture)


def key_of(name: str) -> tuple[str, str]:
    """(key, suffix) of a file in a shard. As in WebDataset the key ends at the first dot: KEY.photo.webp belongs to KEY."""
    folder, _, name = name.rpartition("/")
    key, _, suffix = name.partition(".")
    return f"{folder}/{key}" if folder else key, suffix


def split_validation(pictures: Sequence[Picture], share: float = 0.01) -> tuple[list[Picture], list[Picture]]:
    """Split pictures -> (training, validation), `share` of them for validation.

    The hash of a picture's key decides, so it does not depend on the other pictures.
    """
    train: list[Picture] = []
    valid: list[Picture] = []
    for picture in pictures:
        (valid if zlib.crc32(picture.key.encode()) % 10_000 < share * 10_000 else train).append(picture)
    return train, valid
