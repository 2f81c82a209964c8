"""Official weights, by name: downloaded or taken from files at hand, checked, converted, put where bundles are found.

What is known of them is in weights/known.json: addresses (the first that gives the file is taken), hashes where they are
published, what they must turn out to be, licence. Nothing else in the library downloads anything.
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
from .download import Address, Progress, Unavailable, discard, download
from .registry import convert, origin

log = logging.getLogger(__name__)
Bar = Callable[[str], AbstractContextManager[Progress]]  # of a title


@dataclass(frozen=True)
class Known:
    """Weights that others have published."""

    name: str
    title: str
    kind: str  # of convert.KINDS
    files: tuple[tuple[Address, ...], ...]  # of each file its addresses, which may give it in different formats
    into: tuple[str, ...]  # places under weights/, all for the same file
    arch: dict[str, Any]
    parameters: int
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
    """Bring official weights -> the files that are there now. What was downloaded is removed when it has been converted.

    Args:
        to: a bundle's folder; by default the bundles under weights/ that use them.
        sources: files downloaded by hand, instead of downloading.
        overwrite: replace files that are there; without it they are left, and nothing is downloaded.

    Raises:
        ValueError: no address gives the file, it is damaged or not what it should be, or something else is in its place.
    """
    targets = [Path(to, PurePosixPath(what.into[0]).name)] if to else [bundle.WEIGHTS / place for place in what.into]
    there = [] if overwrite else [path for path in targets if path.exists()]
    for path in there:
        if not _is(path, what):
            raise ValueError(f"{path} is there and is not {what.title}: move it away, or replace it with --overwrite")
    first = there[0] if there else targets[0]
    if not there and sources:
        _convert(what, {Path(source): None for source in sources}, first)
    elif not there:
        _download_and_convert(what, first, bar)
    for path in targets:
        if path != first and path not in there:
            _place(first, path)
    return targets


def _download_and_convert(what: Known, target: Path, bar: Bar) -> None:
    folder = target.parent / ".fetch"
    try:
        parts = _download_all(what, folder, bar)
        try:
            _convert(what, parts, target)
        except ValueError as error:  # a wrong file must not be gone on with the next time
            for part in parts:
                discard(part)
            raise ValueError(f"{error}; the download was removed") from error
        for part in folder.glob(f"{what.name}-*.part"):
            discard(part)
    finally:
        with suppress(OSError):  # not empty: what came so far waits there for the next time
            folder.rmdir()


def _download_all(what: Known, folder: Path, bar: Bar) -> dict[Path, str | None]:
    """Every file of some weights -> where it lies: its address."""
    found: dict[Path, str | None] = {}
    for i, addresses in enumerate(what.files):
        problems = []
        for j, address in enumerate(addresses):
            part = folder / f"{what.name}-{i}-{j}.part"  # one each: an address that fails costs another nothing of what it gave
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
    """Convert, check that it is what it should be, write."""
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
    """Whether a file was converted from such weights."""
    try:
        metadata = storage.read_metadata(path)
        return json.loads(metadata.get("arch", "{}")) == what.arch and "source" in metadata
    except ValueError:
        return False


def _place(file: Path, path: Path) -> None:
    """The same file at a second place: linked, or copied where the disk knows no links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
