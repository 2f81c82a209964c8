"""Files without torch: atomic writing, locks, names, and the metadata, shapes and hashes of model files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from .settings import shortened

FILE_FORMAT = "stylerdalle/1"
LONGEST_HEADER = 4 * 2**20  # bytes; those of our files have less than a hundredth
LONGEST_NAME = 200  # bytes of a name; most file systems allow 255, and temporary files need some
DAY = 86_400.0  # s
FILE_KINDS = ("tokenizer", "translator", "style", "clip", "hypernetwork", "features", "teacher", "pairs", "contents")


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. The file written there takes the place of `path` when the block ends without an error.

    After an error or a kill, `path` is what it was before. What a kill has left is removed by a write of the same path on a later
    day (`_left`).
    """
    for left in _left(path.parent, path.name):
        with suppress(OSError):
            left.unlink()
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say for which file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content becomes the file `path` once all of it is on the disk (see `placing`)."""
    with placing(path) as temporary, temporary.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def temporary_name(name: str, process: object = None) -> str:
    """The name of the temporary file of `placing`, by the process that writes it; "*" gives a pattern for all processes."""
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}.{os.getpid() if process is None else process}.tmp"


def _left(folder: Path, name: str) -> list[Path]:
    """Temporary files of a name that nobody has written to for a day: their processes were killed."""
    start, _, end = temporary_name(name, "*").rpartition("*")
    return [folder / one for one in _abandoned(folder) if one.startswith(start) and one[len(start) : -len(end)].isdigit()]


@lru_cache(maxsize=64)
def _abandoned(folder: Path) -> tuple[str, ...]:
    """Names of temporary files in a folder, unchanged for a day. A process looks once: folders may be large."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(".") and entry.name.endswith(".tmp")]
            return tuple(entry.name for entry in found if time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY)
    except OSError:  # the write itself will tell
        return ()


class Lock:
    """An exclusive lock between processes. The system drops it when the process ends, however it ends.

    Args:
        path: a file made for the lock, which stays. Its folder must exist.
    """

    def __init__(self, path: str | Path):
        self._file: int | None = None
        self.path = Path(path)

    def take(self) -> bool:
        """Take the lock -> whether it is ours now. On a file system without locks it always is.

        Raises:
            OSError: the file cannot be made.
        """
        if self._file is not None:
            return True
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):  # another holds it
            os.close(file)
            return False
        except OSError:  # this file system has no locks
            pass
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        if self._file is not None:
            os.close(self._file)  # the system drops the lock with it
            self._file = None

    def __del__(self) -> None:
        self.release()


def _lock(file: int) -> None:
    """Lock an open file without waiting. Raises BlockingIOError or PermissionError where another process has locked it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def next_free(path: Path, taken: Callable[[Path], bool] = lambda there: True) -> Path:
    """The path, or the first of NAME-2, NAME-3, ... that does not exist, or that `taken` says may be used."""
    number, free = 2, path
    while (free.exists() or free.is_symlink()) and taken(free):
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def place_of(path: str | Path) -> str:
    """A text that is the same for paths that mean the same file, whether it exists or not.

    Links are followed. On Windows and macOS, whose file systems do so, case and the composition of accents are ignored.
    """
    real = os.path.realpath(path)
    return unicodedata.normalize("NFC", real).casefold() if sys.platform in ("win32", "darwin") else real


def identities(path: str | Path) -> list[str]:
    """Texts of which two paths to one file share at least one: its place and, where it exists, its number on the disk."""
    try:
        status = os.stat(path)
    except OSError:
        return [place_of(path)]
    return [place_of(path), f"{status.st_dev}:{status.st_ino}"] if status.st_ino else [place_of(path)]


def same_file(path: str | Path, others: Iterable[str | Path]) -> Path | None:
    """The first of `others` that is the same file as `path`; None if there is none."""
    wanted = set(identities(path))
    return next((Path(other) for other in others if wanted.intersection(identities(other))), None)


def composed(name: str) -> str:
    """A file name with composed accents (Unicode NFC), so that names from macOS agree with those from other systems."""
    return unicodedata.normalize("NFC", name)


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


def read_recipe(path: str | Path) -> dict[str, Any]:
    """How one of our model files was made, from its metadata; empty where it does not say. Raises ValueError as read_metadata."""
    try:
        found = json.loads(read_metadata(path).get("recipe", "{}"))
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


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
        _check_header(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({shortened(error, 200)}): copy it again") from error
    if metadata.get("format") != FILE_FORMAT:
        raise ValueError(
            f"{path} is not a StylerDALLE file (format {shortened(metadata.get('format'))!r}, need {FILE_FORMAT!r}): "
            "foreign weights must be converted first"
        )
    return dict(metadata)


def _check_header(path: str) -> None:
    """Raises ValueError for a header that safetensors reads but that harms: too long, or with a key twice."""
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes, at most {LONGEST_HEADER:,} are read")
        text = stream.read(length)
    json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises ValueError for a key that comes twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"its header has {shortened(key)!r} twice")
        found[key] = value
    return found


@lru_cache(maxsize=64)
def _sha256(path: str, *stamp: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
