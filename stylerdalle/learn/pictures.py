"""Pictures to train on, from WebDataset tar shards or plain folders. They are kept encoded, and decoded when a batch needs them.

A sample of a shard is KEY.webp (or another of PHOTO_SUFFIXES) and, beside it, KEY.json with any of
{caption: [...], style, content, kind, source, licence}. A plain folder has pictures only.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from ..images.decode import Decoded, decode, opened


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
            ValueError: it cannot be read.
        """
        return _decode(self.data, self.key)

    def decoded(self) -> Decoded:
        """The picture, and remarks on what is wrong with its file. Raises ValueError as `open`."""
        return decode(self.data, self.key)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, read without decoding."""
        with opened(self.data, self.key) as (image, _, _):
            return image.size


@lru_cache(maxsize=2048)
def _decode(data: bytes, key: str) -> Image.Image:
    return decode(data, key).over_white()


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
        (valid if zlib.crc32(os.fsencode(picture.key)) % 10_000 < share * 10_000 else train).append(picture)
    return train, valid
