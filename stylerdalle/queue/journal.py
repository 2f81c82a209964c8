"""What a batch has done, in its output folder: queue.jsonl, a line an event, and report.json at the end.

The first line is what the batch is (workflow and node of the photo); then {"picture", "stem", "file", "server", "prompt"} before
a prompt is sent, and a Row when a photo is done or given up. Each line is on the disk before anything follows from it, so a
batch killed at any moment goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..storage import replacing
from .workflow import Workflow, node_name

FORMAT = "stylerdalle-queue/1"
JOURNAL, REPORT = "queue.jsonl", "report.json"
PHOTOS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@dataclass(frozen=True)
class Row:
    """How a photo came out."""

    picture: str  # its path below the folder of photos
    server: str | None  # which did it, or failed last
    seconds: float | None  # of the run, by the server's clock
    tries: int
    outputs: list[str]  # files below the output folder
    error: str | None  # None: it is done
    results: dict[str, Any]  # what nodes say besides files, by node
    file: list[int]  # size and time of the photo: another one under the same name is done anew
    stem: str  # what its outputs are called, without suffix


@dataclass
class Picture:
    """A photo on its way."""

    path: Path
    name: str  # below the folder of photos
    file: list[int]
    stem: str = ""  # what its outputs are called, below the output folder, without suffix
    tries: int = 0
    prompts: dict[str, str] = field(default_factory=dict)  # server: prompt id, of runs that may still come out
    failed: dict[str, str] = field(default_factory=dict)  # server: what was wrong with the photo there
    server: str | None = None  # which had it last
    problem: str = ""  # what happened there


def find_pictures(folder: Path, output: Path) -> list[Picture]:
    """The photos in a folder and those below it.

    Raises:
        ValueError: there are none, or the outputs would be among them.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give a folder of photos as --images")
    if output.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{output} is in the folder of photos {folder}: its pictures would be taken for photos, choose another")
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix.lower() in PHOTOS and path.is_file() and not any(part.startswith(".") for part in name.parts):
            facts = path.stat()
            found.append(Picture(path, name.as_posix(), [facts.st_size, facts.st_mtime_ns]))
    if not found:
        raise ValueError(f"{folder} holds no photo ({', '.join(PHOTOS)})")
    return found


def free(taken: Collection[str], *names: str) -> str:
    """The first of the names that is not taken, or the last with as many _ as it needs. Case does not count."""
    name = next((name for name in names if name.casefold() not in taken), names[-1])
    while name.casefold() in taken:
        name += "_"
    return name


class Journal:
    """The journal of a folder; `done` and the others are what it says of an earlier run, by picture."""

    def __init__(self, folder: Path, workflow: Workflow, number: str):
        self.folder, self.path = folder, folder / JOURNAL
        self.head = {"format": FORMAT, "photo_node": number, "workflow": workflow}
        self.done: dict[str, Row] = {}
        self.prompts: dict[str, dict[str, str]] = {}  # {server: prompt id} of runs that may still come out
        self.stems: dict[str, str] = {}
        self.files: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the folder against other processes, and begin to write. Raises ValueError as read, or where it is in use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".queue.lock", timeout=0):
                self.read()
                self._write()
                yield
        except Timeout as error:
            raise ValueError(f"another stylerdalle queue works on {self.folder}: wait for it, or choose another") from error

    def read(self) -> None:
        """Read what there is.

        Raises:
            ValueError: the folder holds something else, or another batch.
        """
        folder = self.folder
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise ValueError(f"{folder} is not a folder that can be written: give another --output")
        if folder.exists() and not self.path.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} holds files of no batch: give a new or an empty folder as --output")
        for known in (self.done, self.prompts, self.stems, self.files):
            known.clear()
        lines = [json.loads(line) for line in _whole_lines(self.path)]
        if not lines:
            return
        if lines[0].get("format") != FORMAT:
            raise ValueError(f"{self.path} is not a journal that this version reads: give another --output")
        for line in lines[1:]:
            name = line["picture"]
            self.stems[name], self.files[name] = line["stem"], line["file"]
            if "prompt" in line:
                self.prompts.setdefault(name, {})[line["server"]] = line["prompt"]
                continue
            self.prompts.pop(name, None)
            if line["error"] is None:
                self.done[name] = Row(**{key.name: line[key.name] for key in fields(Row)})
        if (self.done or self.prompts) and (differ := _differences(lines[0], self.head)):
            raise ValueError(
                f"the batch in {folder} was begun with {differ}: go on with the same workflow and --set, or give another --output"
            )

    def _write(self) -> None:
        """The journal anew, without what no longer counts and what a kill cut short."""
        lines: list[dict[str, Any]] = [self.head, *(asdict(row) for row in self.done.values())]
        for name, prompts in self.prompts.items():
            lines += [_prompt(name, self.stems[name], self.files[name], url, prompt) for url, prompt in prompts.items()]
        with replacing(self.path) as stream:
            stream.writelines(_line(line) for line in lines)

    def _add(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as stream:
            stream.write(_line(line))
            stream.flush()
            os.fsync(stream.fileno())

    def add_prompt(self, picture: Picture, server: str, prompt: str) -> None:
        self._add(_prompt(picture.name, picture.stem, picture.file, server, prompt))

    def add_row(self, row: Row) -> None:
        self._add(asdict(row))

    def left(self, pictures: list[Picture]) -> tuple[list[Picture], list[Row]]:
        """(the photos still to do, those that may have run already first; the rows of those done, whose outputs are there).

        Every photo gets its `stem`: the one it had, or else its own name. Where photos differ in their suffix only, the first
        is called without and others with it: a.jpg, a.png -> a, a.png.
        """
        taken = {stem.casefold() for stem in self.stems.values()}
        first: list[Picture] = []
        others: list[Picture] = []
        rows: list[Row] = []
        for picture in pictures:
            plain = picture.name[: -len(picture.path.suffix)]
            picture.stem = self.stems.get(picture.name) or free(taken, plain, picture.name)
            taken.add(picture.stem.casefold())
            row = self.done.get(picture.name)
            if row and row.file == picture.file and all((self.folder / name).is_file() for name in row.outputs):
                rows.append(row)
                continue
            if self.files.get(picture.name) == picture.file:
                picture.prompts = dict(self.prompts.get(picture.name, {}))
            (first if picture.prompts else others).append(picture)
        return first + others, rows

    def report(self, facts: dict[str, Any], rows: list[Row]) -> Path:
        """Write report.json: facts, and `results`, a row a picture -> its path."""
        path = self.folder / REPORT
        with replacing(path) as stream:
            stream.write(json.dumps({**facts, "results": [asdict(row) for row in rows]}, indent=1).encode())
        return path


def _prompt(name: str, stem: str, file: list[int], server: str, prompt: str) -> dict[str, Any]:
    return {"picture": name, "stem": stem, "file": file, "server": server, "prompt": prompt}


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, without a last one that was cut short."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is not the same in two first lines, in words; empty where all is."""
    if before == now:
        return ""
    old, new = before["workflow"], now["workflow"]
    if {n: node["class_type"] for n, node in old.items()} != {n: node["class_type"] for n, node in new.items()}:
        return "another workflow"
    found = [
        f"{key} {old[number]['inputs'].get(key)!r} (now {new[number]['inputs'].get(key)!r}) of {node_name(old, number)}"
        for number in old
        for key in {**old[number]["inputs"], **new[number]["inputs"]}
        if old[number]["inputs"].get(key) != new[number]["inputs"].get(key)
    ]
    if before["photo_node"] != now["photo_node"]:
        found.append(f"--photo-node {before['photo_node']} (now {now['photo_node']})")
    return ", ".join(found)
