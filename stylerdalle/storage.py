"""Model files without torch: atomic writing, metadata, shapes and hashes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    pass


FORMAT = "stylerdalle/1"
KINDS = ("tokenizer", "translator", "style", "clip", "hypernetwork")
log = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a temporary file beside `path`, which takes its place when it is whole and on the disk: a kill, an error or a
    full disk leave what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of one of our files, without its tensors.

    Raises:
        ValueError: the file is missing, damaged or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): copy it again") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a StylerDALLE file (format {metadata.get('format')!r}, need {FORMAT!r}): "
            "foreign weights must be converted first"
        )
    return dict(metadata)


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of one of our files, without reading the tensors."""
    read_metadata(path)
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping


def sha256(path: str | Path) -> str:
    """Hex digest of a file, remembered while the file stays the same."""
    status = os.stat(path)
    return _sha256(os.path.realpath(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _sha256(path: str, mtime: int, size: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
