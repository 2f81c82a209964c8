"""Readers of pictures. `pictures` gives them one at a time and suits millions; `read_pictures` holds all in memory and suits
training on thousands.

While reading, only names and places in files are held, of one folder or one tar shard at a time.
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ..images.decode import decode
from ..images.folders import is_junk, photos_below
from ..images.kinds import PHOTO_SUFFIXES
from ..storage import composed
from .pictures import Picture, key_of
from .shards import members

log = logging.getLogger(__name__)


def read_pictures(paths: Sequence[str | Path]) -> list[Picture]:
    """All pictures of the given shards, folders and files, in a fixed order.

    Raises:
        ValueError: as `entries`.
    """
    return list(pictures(paths))


def checked(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures that can be read. The others are named in a warning each: at the start of a run, not in the middle.

    Raises:
        ValueError: none can be read.
    """
    with ThreadPoolExecutor(4) as pool:
        problems = list(pool.map(_problem, pictures))
    good = [picture for picture, problem in zip(pictures, problems, strict=True) if not problem]
    for problem in filter(None, problems):
        log.warning("left out: %s", problem)
    if pictures and not good:
        raise ValueError(f"none of the {len(pictures)} pictures can be read, such as: {problems[0]}")
    return good


def _problem(picture: Picture) -> str:
    """Why a picture cannot be read, or ""."""
    try:
        for remark in decode(picture.data, picture.key).remarks:
            log.warning("%s: %s", picture.key, remark)
    except ValueError as error:
        return str(error)
    return ""


class Entry(NamedTuple):
    """Where a picture is: in a file of its own, or in a tar shard."""

    path: Path  # of the file or the shard
    name: str  # of the picture: its path below the folder given, or in the shard
    size: int  # bytes
    start: int = -1  # byte in the shard; -1: a file of its own
    note: tuple[int, int] = (0, 0)  # start and size of KEY.json in the shard; (0, 0): there is none


def entries(paths: Sequence[str | Path]) -> Iterator[Entry]:
    """Where all pictures of the given shards, folders and files are, in a fixed order. Only the shards' headers are read.

    Raises:
        ValueError: a path does not exist, holds no picture, or is no readable shard.
    """
    for path in map(Path, paths):
        if path.is_dir():
            tars = sorted(tar for tar in path.glob("*.tar") if not is_junk(tar.name))
            found = (entry for tar in tars for entry in _of_tar(tar)) if tars else _of_folder(path)
        elif path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES:
            found = iter([Entry(path, composed(path.name), path.stat().st_size)])
        elif path.is_file():
            found = _of_tar(path)
        else:
            raise ValueError(f"{path} does not exist: give pictures, folders of pictures or .tar shards")
        first = next(found, None)
        if first is None:
            raise ValueError(f"{path} holds no picture ({', '.join(PHOTO_SUFFIXES)})")
        yield first
        yield from found


def _of_folder(folder: Path) -> Iterator[Entry]:
    for name, path in photos_below(folder):
        yield Entry(path, name, path.stat().st_size)


def _of_tar(path: Path) -> Iterator[Entry]:
    found: dict[str, Entry] = {}
    notes: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in members(tar):
                if not member.isfile():
                    continue
                key, suffix = key_of(member.name)
                if suffix == "json":
                    notes[key] = (member.offset_data, member.size)
                elif f".{suffix.lower()}" in PHOTO_SUFFIXES:  # not KEY.photo.webp of a made pair
                    found[key] = Entry(path, member.name, member.size, member.offset_data)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"{path} is neither a picture ({', '.join(PHOTO_SUFFIXES)}) nor a readable tar shard: {error}"
        ) from error
    for key, entry in found.items():
        yield entry._replace(note=notes.get(key, (0, 0)))


def read(found: Iterable[Entry]) -> Iterator[tuple[Entry, bytes, bytes]]:
    """(entry, encoded picture, its KEY.json or nothing) of each entry, one at a time."""
    for path, group in groupby(found, key=lambda entry: entry.path):
        here = list(group)
        if here[0].start < 0:
            yield from ((entry, _bytes(entry.path), b"") for entry in here)
            continue
        with tarfile.open(path) as tar:
            stream: Any = tar.fileobj  # gives the unpacked bytes of a compressed shard
            for entry in here:
                yield entry, _part(stream, entry.start, entry.size), _part(stream, *entry.note)


def _bytes(path: Path) -> bytes:
    """The content of a file; empty, with a warning, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        log.warning("%s cannot be read (%s)", path, error.strerror)
        return b""


def _part(stream: Any, start: int, size: int) -> bytes:
    stream.seek(start)
    data: bytes = stream.read(size)
    return data


def note_of(text: bytes) -> dict[str, Any]:
    """A KEY.json as a dictionary, its captions as a list.

    Raises:
        ValueError: it is damaged, or not an object.
    """
    note = json.loads(text) if text else {}
    if not isinstance(note, dict):
        raise ValueError(f"its .json is {str(note)[:40]!r}, not an object")
    given = note.get("caption") or []
    return {**note, "caption": [given] if isinstance(given, str) else list(given)}


def pictures(paths: Sequence[str | Path]) -> Iterator[Picture]:
    """All pictures of the given shards, folders and files, in a fixed order, one at a time.

    Raises:
        ValueError: as `entries`.
    """
    for entry, data, text in read(entries(paths)):
        try:
            note = note_of(text)
        except (ValueError, TypeError) as error:
            log.warning("left out: %s in %s, whose .json is damaged (%s)", entry.name, entry.path, error)
            continue
        if entry.start < 0:
            key = entry.name
            note["source"] = entry.path.parents[len(Path(key).parts) - 1].name  # the folder given
        else:
            key = key_of(entry.name)[0]
        texts = {name: note.get(name) or "" for name in ("style", "content", "source")}
        yield Picture(key, data, tuple(note["caption"]), kind=note.get("kind") or "photo", **texts)
