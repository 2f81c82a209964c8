"""Writes that fail: the disk is full, or the device breaks, at the n-th thing that a job writes below a folder.

Counted are: a file opened for writing, each write to it, an fsync, a file moved into its place, a folder made.
"""

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Writes:
    """Counts the writes below a folder, and fails one of them with `errno`; that and all later ones where it stays full."""

    folder: str
    fails: int | None
    errno: int
    count: int = 0
    places: list[int] = field(default_factory=list)  # indices of all but the second and later writes to an open file

    def next(self, path: Any = None, alike: bool = False) -> None:
        if path is not None and not os.path.abspath(os.fsdecode(path)).startswith(self.folder):
            return
        if not alike:
            self.places.append(self.count)
        self.count += 1
        if self.fails is not None and self.count - 1 == self.fails:
            raise OSError(self.errno, os.strerror(self.errno))


class Stream:
    """A file whose writes are counted; everything else is the file's own."""

    def __init__(self, file: Any, writes: Writes):
        self._file, self._writes, self._begun = file, writes, False

    def write(self, data: Any) -> int:
        self._writes.next(alike=self._begun)
        self._begun = True
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextlib.contextmanager
def injected(folder: Path, fails: int | None, errno: int) -> Iterator[Writes]:
    """Count the writes of the block below a folder; the one with the index `fails` raises OSError."""
    writes = Writes(os.path.abspath(folder), fails, errno)
    real: dict[tuple[Any, str], Callable[..., Any]] = {}

    def opening(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        ours = isinstance(file, (str, bytes, os.PathLike)) and set(mode) & set("wax+")
        if not ours or not os.path.abspath(os.fsdecode(file)).startswith(writes.folder):
            return real[builtins, "open"](file, mode, *args, **options)
        writes.next()
        return Stream(real[builtins, "open"](file, mode, *args, **options), writes)

    def counted(module: Any, name: str, which: int = 0) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            writes.next(args[which] if name != "fsync" else None)
            return real[module, name](*args, **options)

        return call

    places = [(builtins, "open"), (io, "open"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "fsync"), (os, "link")]
    for module, name in places:
        real[module, name] = getattr(module, name)
    try:
        for module, name in places:
            setattr(module, name, opening if name == "open" else counted(module, name, 0 if name == "mkdir" else 1))
        yield writes
    finally:
        for module, name in places:
            setattr(module, name, real[module, name])
