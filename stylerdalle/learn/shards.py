"""Write WebDataset tar shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ..storage import replacing


def write_shard(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> int:
    """Write samples (key, {suffix: bytes}) to a tar, by a temporary file -> how many were written."""
    count = 0
    with replacing(path) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for key, files in samples:
            for suffix, data in files.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            count += 1
    return count


def encoded(image: Image.Image, lossless: bool = False) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=92, lossless=lossless)
    return stream.getvalue()
