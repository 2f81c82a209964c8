"""Folders as people have them: the pictures in them, and what is passed over."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..storage import composed
from .kinds import PHOTO_SUFFIXES

# files and folders of operating systems and photo programs
JUNK = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "system volume information")
NAMED = 3  # examples in a message
log = logging.getLogger(__name__)


def is_junk(name: str) -> bool:
    """Whether a name is of a hidden or system file, which is passed over in silence: .DS_Store, ._photo.jpg, Thumbs.db."""
    return name.startswith(".") or name.casefold() in JUNK


def photos_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name: the path below the folder, with / and composed accents; file) of all pictures in a folder and its subfolders.

    The suffix makes a file a picture. Hidden and system files are passed over in silence. Other files, dead links, linked
    folders and folders that cannot be read are counted and named in one warning, after the last picture.
    """
    passed: list[str] = []
    yield from _below(folder, "", passed)
    if passed:
        kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in passed)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        names = ", ".join(passed[:NAMED]) + (", ..." if len(passed) > NAMED else "")
        heic = "; HEIC is not read, save it as JPEG" if kinds.keys() & {".heic", ".heif"} else ""
        log.warning("%s: passed over, not pictures: %s (%s)%s", folder, counts, names, heic)


def _below(folder: Path, below: str, passed: list[str]) -> Iterator[tuple[str, Path]]:
    try:
        found = sorted(folder.iterdir(), key=lambda path: composed(path.name))
    except OSError:
        if not below:
            raise
        passed.append(below)
        return
    for path in found:
        name = below + composed(path.name)
        if is_junk(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _below(path, f"{name}/", passed)
        elif path.suffix.lower() in PHOTO_SUFFIXES and path.is_file() and os.access(path, os.R_OK):
            yield name, path
        else:
            passed.append(name)
