"""WebDataset tar shards: samples of files that share a key."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from ..storage import replacing


def write_shard(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> int:
    """Write samples (key, {suffix: bytes}) to a tar -> how many were written. A kill leaves no half-written tar."""
    count = 0
    with replacing(path) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for key, files in samples:
            for suffix, data in files.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            count += 1
    return count


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an open tar, one at a time. Unlike tarfile's own iterator it keeps none, so millions need no memory."""
    untyped: Any = tar
    for member in tar:
        untyped.members = []
        yield member


def encoded(image: Image.Image, lossless: bool = False) -> bytes:
    """A picture as WebP, quality 92 or lossless."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=92, lossless=lossless)
    return stream.getvalue()
