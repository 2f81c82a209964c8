"""Files without torch: atomic writing, names, and the metadata, shapes and hashes of model files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open

FILE_FORMAT = "stylerdalle/1"
FILE_KINDS = ("tokenizer", "translator", "style", "clip", "hypernetwork", "features", "teacher", "pairs")


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. The file written there takes the place of `path` when the block ends without an error.

    After an error or a kill, `path` is what it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content becomes the file `path` once all of it is on the disk (see `placing`)."""
    with placing(path) as temporary, temporary.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def slug(text: str, longest: int = 40) -> str:
    """The text as a part of a file name: lower case, everything but letters, digits and _ as hyphens; may be empty."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:longest]


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of one of our model files, remembered while the file stays the same; no tensor is read.

    Raises:
        ValueError: the file is missing, damaged or not one of ours.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist: check the path")
    return dict(_metadata(str(path), *_stamp(path)))


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of one of our model files; no tensor is read. Raises ValueError as read_metadata."""
    read_metadata(path)
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping


def sha256(path: str | Path) -> str:
    """Hex digest of a file, remembered while the file stays the same. Raises OSError where it cannot be read."""
    return _sha256(os.path.realpath(path), *_stamp(path))


def _stamp(path: str | Path) -> tuple[int, int, int]:
    """Numbers that change when the file does."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=1024)
def _metadata(path: str, *stamp: int) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): copy it again") from error
    if metadata.get("format") != FILE_FORMAT:
        raise ValueError(
            f"{path} is not a StylerDALLE file (format {metadata.get('format')!r}, need {FILE_FORMAT!r}): "
            "foreign weights must be converted first"
        )
    return dict(metadata)


@lru_cache(maxsize=64)
def _sha256(path: str, *stamp: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
