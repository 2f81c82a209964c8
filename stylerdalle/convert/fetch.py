"""Official weights by name: downloaded, or read from files downloaded by hand; checked, converted, put where bundles look.

weights/known.json lists for each: download sources (tried in order), published hashes, the expected architecture, the licence.
Nothing else in the library downloads anything.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import bundle, storage
from ..progress import Progress
from .download import Address, Unavailable, discard, download
from .registry import convert, origin

log = logging.getLogger(__name__)
Bar = Callable[[str], AbstractContextManager[Progress]]  # title -> a progress bar
DOWNLOADS = ".fetch"  # a folder beside the file that is made of them


@dataclass(frozen=True)
class Known:
    """Weights published by others."""

    name: str
    title: str
    kind: str  # a name in convert.registry.CONVERTERS
    files: tuple[tuple[Address, ...], ...]  # for each file its sources, which may have different formats
    into: tuple[str, ...]  # paths under weights/, all for the same file
    arch: dict[str, Any]  # expected after conversion
    parameters: int  # expected number
    licence: str


def known() -> dict[str, Known]:
    """The table of weights/known.json."""
    rows = json.loads((bundle.WEIGHTS / "known.json").read_text(encoding="utf-8"))
    for row in rows.values():
        row["files"] = tuple(tuple(Address(**address) for address in addresses) for addresses in row["files"])
        row["into"] = tuple(row["into"])
    return {name: Known(name=name, **row) for name, row in rows.items()}


def fetch(
    what: Known,
    to: str | Path | None = None,
    sources: Sequence[str | Path] = (),
    overwrite: bool = False,
    bar: Bar = lambda title: nullcontext(lambda done, total: None),
) -> list[Path]:
    """Fetch official weights -> the model files. Downloads are removed after conversion.

    Args:
        to: folder of a bundle; by default the bundles under weights/ that use these weights.
        sources: files downloaded by hand, to use instead of downloading.
        overwrite: replace existing files; without it they are kept, and nothing is downloaded.

    Raises:
        ValueError: no source provides the file, it is damaged or not the expected one, or another file is in its place.
    """
    targets = [Path(to, PurePosixPath(what.into[0]).name)] if to else [bundle.WEIGHTS / place for place in what.into]
    for path in targets:
        if taken := storage.same_file(path, sources):
            raise ValueError(f"{path} is one of the files given with --from ({taken}), which would be lost: give another --to")
    there = [] if overwrite else [path for path in targets if path.exists()]
    for path in there:
        if not _is(path, what):
            raise ValueError(f"{path} exists and is not {what.title}: move it away, or replace it with --overwrite")
    first = there[0] if there else targets[0]
    if not there and sources:
        _convert(what, {Path(source): None for source in sources}, first)
    elif not there:
        _download_and_convert(what, first, bar)
    for path in there:  # a command that was killed after it had converted them leaves its downloads
        _remove_downloads(what, path.parent / DOWNLOADS)
    for path in targets:
        if path != first and path not in there:
            _place(first, path)
    return targets


def _download_and_convert(what: Known, target: Path, bar: Bar) -> None:
    """Download to a folder beside the target, convert, remove the downloads. An interrupted download stays for the next time."""
    folder = target.parent / DOWNLOADS
    try:
        parts = _download_all(what, folder, bar)
        try:
            _convert(what, parts, target)
        except ValueError as error:  # or the next command would resume a wrong file
            for part in parts:
                discard(part)
            raise ValueError(f"{error}; the download was removed") from error
        _remove_downloads(what, folder)
    finally:
        with suppress(OSError):  # not empty: it holds a part for the next command to resume
            folder.rmdir()


def _remove_downloads(what: Known, folder: Path) -> None:
    """Remove the downloads of some weights, and their folder if nothing else is in it."""
    for path in folder.glob(f"{what.name}-*.part*"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _download_all(what: Known, folder: Path, bar: Bar) -> dict[Path, str | None]:
    """Download every file of some weights -> {its path: its URL}."""
    found: dict[Path, str | None] = {}
    for i, addresses in enumerate(what.files):
        problems = []
        for j, address in enumerate(addresses):
            part = folder / f"{what.name}-{i}-{j}.part"  # one per source: a source that fails does not discard another's part
            try:
                with bar(PurePosixPath(address.url).name) as progress:
                    download(address, part, progress)
            except Unavailable as problem:
                problems.append(str(problem))
                log.info("%s", problem)
            else:
                found[part] = address.url
                break
        else:
            raise ValueError(f"{'; '.join(problems)}: try later, or give files downloaded by hand with --from (docs/weights.md)")
    return found


def _convert(what: Known, files: dict[Path, str | None], target: Path) -> None:
    """Convert files {path: URL, or None for one given by hand}, check the result, write it."""
    hashes = {PurePosixPath(a.url).name: a.sha256 for addresses in what.files for a in addresses}
    for path in files:
        want = hashes.get(path.name)
        if want and path.is_file() and storage.sha256(path) != want:
            raise ValueError(f"{path} is damaged or another file: its sha256 is {storage.sha256(path)}, published is {want}")
    converted = convert(what.kind, list(files))
    arch = json.loads(json.dumps(converted.arch))
    if arch != what.arch or converted.parameters != what.parameters:
        raise ValueError(
            f"{', '.join(map(str, files))}: this is not {what.title}, but {converted.parameters:,} parameters (need "
            f"{what.parameters:,}), sizes {json.dumps(arch)}"
        )
    notes = [origin(path) | ({"file": PurePosixPath(url).name, "url": url} if url else {}) for path, url in files.items()]
    converted.save(target, licence=what.licence, source=notes)


def _is(path: Path, what: Known) -> bool:
    """Whether a file was converted from these weights."""
    try:
        metadata = storage.read_metadata(path)
        return json.loads(metadata.get("arch", "{}")) == what.arch and "source" in metadata
    except ValueError:
        return False


def _place(file: Path, path: Path) -> None:
    """Put the same file at a second path: a hard link, or a copy where the disk has no links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.placing(path) as temporary:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
