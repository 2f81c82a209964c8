"""The record of a batch in its output folder: queue.jsonl, one line per event, and report.json at the end.

The first line of queue.jsonl describes the batch (workflow and photo node). Then come {"picture", "stem", "file", "server",
"prompt"} before a prompt is sent, and a Row when a photo is done or given up. Each line is flushed to disk before the batch acts
on it, so a batch killed at any moment can resume.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..images.folders import photos_below
from ..images.kinds import PHOTO_SUFFIXES
from ..storage import Lock, replacing
from .auth import Secrets, without_secrets
from .workflow import Workflow, node_name

JOURNAL_FORMAT = "stylerdalle-queue/1"
JOURNAL, REPORT = "queue.jsonl", "report.json"
NOT_TRIED = "no server is left that could do it"  # the error of a Row without a try


@dataclass(frozen=True)
class Row:
    """The result of one photo: a line of the journal and of the report."""

    picture: str  # the photo's path below the folder of photos
    server: str | None  # URL of the server that did it, or that failed last
    seconds: float | None  # of the run, by the server's clock
    tries: int
    outputs: list[str]  # files below the output folder
    error: str | None  # None: the photo is done
    results: dict[str, Any]  # other outputs than files, such as texts, by node
    file: list[int]  # size and time of the photo: a photo that has changed is done again
    stem: str  # name of its outputs, without suffix


@dataclass
class Photo:
    """A photo of the batch and its state."""

    path: Path
    name: str  # path below the folder of photos
    file: list[int]  # size and time
    stem: str = ""  # name of its outputs below the output folder, without suffix
    tries: int = 0
    prompt_ids: dict[str, str] = field(default_factory=dict)  # by server URL: runs that may still finish
    failed: dict[str, str] = field(default_factory=dict)  # by server URL: why the photo failed there
    server: str | None = None  # URL of the server that had it last
    problem: str = ""  # what went wrong there


def find_photos(folder: Path, output: Path) -> list[Photo]:
    """The photos in a folder and its subfolders, in the order of their names; hidden ones are left out.

    Raises:
        ValueError: there are none, or the outputs would lie among them.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give a folder of photos as --images")
    if output.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{output} is in the folder of photos {folder}: its files would count as photos; give another --output")
    if folder.resolve().is_relative_to(output.resolve()):
        raise ValueError(f"the folder of photos {folder} is in {output}: results could replace photos; give another --output")
    found = []
    for name, path in photos_below(folder):
        facts = path.stat()
        found.append(Photo(path, name, [facts.st_size, facts.st_mtime_ns]))
    if not found:
        raise ValueError(f"{folder} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
    return found


def free(taken: Collection[str], *names: str) -> str:
    """The first of the names that is not taken, ignoring case; if all are, the last one with _ appended until it is free."""
    name = next((name for name in names if name.casefold() not in taken), names[-1])
    while name.casefold() in taken:
        name += "_"
    return name


class Journal:
    """The journal of an output folder.

    `done`, `prompt_ids`, `stems` and `files` hold, by photo name, what earlier runs of the command have recorded.
    """

    def __init__(self, folder: Path, workflow: Workflow, photo_node: str):
        self.folder, self.path = folder, folder / JOURNAL
        self.head = {"format": JOURNAL_FORMAT, "photo_node": photo_node, "workflow": workflow}
        self.done: dict[str, Row] = {}
        self.prompt_ids: dict[str, dict[str, str]] = {}  # {server URL: prompt id} of runs that may still finish
        self.stems: dict[str, str] = {}
        self.files: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Lock the folder, read the journal and start to write it. Raises ValueError as `read` does, or where it is locked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.folder / ".queue.lock")
        if not lock.take():
            raise ValueError(f"another stylerdalle queue works on {self.folder}: wait for it, or give another --output")
        try:
            self.read()
            self._write()
            yield
        finally:
            lock.release()

    def read(self) -> None:
        """Read the journal of earlier runs, if there is one.

        Raises:
            ValueError: the folder holds other files, or a batch with another workflow or other settings.
        """
        folder = self.folder
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise ValueError(f"{folder} is not a folder that can be written to: give another --output")
        if folder.exists() and not self.path.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} holds files of no batch: give a new or an empty folder as --output")
        for known in (self.done, self.prompt_ids, self.stems, self.files):
            known.clear()
        lines = [json.loads(line) for line in _whole_lines(self.path)]
        if not lines:
            return
        if lines[0].get("format") != JOURNAL_FORMAT:
            raise ValueError(f"{self.path} is not a journal that this version reads: give another --output")
        # earlier versions kept passwords, which no message may show
        before = {**lines[0], "workflow": without_secrets(lines[0]["workflow"], Secrets())}
        for line in lines[1:]:
            name = line["picture"]
            self.stems[name], self.files[name] = line["stem"], line["file"]
            if "prompt" in line:
                self.prompt_ids.setdefault(name, {})[line["server"]] = line["prompt"]
                continue
            self.prompt_ids.pop(name, None)
            if line["error"] is None:
                self.done[name] = Row(**{key.name: line[key.name] for key in fields(Row)})
        if (self.done or self.prompt_ids) and (differ := _differences(before, self.head)):
            raise ValueError(
                f"the batch in {folder} was begun with {differ}: use the same workflow and --set, or give another --output"
            )

    def _write(self) -> None:
        """Rewrite the journal without outdated lines and without a line that a kill cut short."""
        lines: list[dict[str, Any]] = [self.head, *(asdict(row) for row in self.done.values())]
        for name, prompt_ids in self.prompt_ids.items():
            lines += [_prompt(name, self.stems[name], self.files[name], url, sent) for url, sent in prompt_ids.items()]
        with replacing(self.path) as stream:
            stream.writelines(_line(line) for line in lines)

    def _add(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as stream:
            stream.write(_line(line))
            stream.flush()
            os.fsync(stream.fileno())

    def add_prompt(self, photo: Photo, url: str, prompt_id: str) -> None:
        """Record that a photo is about to be sent to a server."""
        self._add(_prompt(photo.name, photo.stem, photo.file, url, prompt_id))

    def add_row(self, row: Row) -> None:
        """Record that a photo is done or given up."""
        self._add(asdict(row))

    def remaining(self, photos: list[Photo]) -> tuple[list[Photo], list[Row]]:
        """(photos still to do, rows of photos that are done and whose outputs exist).

        Photos that may have run already come first. Sets each photo's `stem`: the one it had before, or its own name. Of photos
        whose names differ only in their suffix, the others keep theirs: a.jpg, a.png -> a, a.png.
        """
        taken = {stem.casefold() for stem in self.stems.values()}
        sent: list[Photo] = []
        new: list[Photo] = []
        rows: list[Row] = []
        for photo in photos:
            plain = photo.name[: -len(photo.path.suffix)]
            photo.stem = self.stems.get(photo.name) or free(taken, plain, photo.name)
            taken.add(photo.stem.casefold())
            row = self.done.get(photo.name)
            if row and row.file == photo.file and all((self.folder / name).is_file() for name in row.outputs):
                rows.append(row)
                continue
            if self.files.get(photo.name) == photo.file:
                photo.prompt_ids = dict(self.prompt_ids.get(photo.name, {}))
            (sent if photo.prompt_ids else new).append(photo)
        return sent + new, rows

    def report(self, facts: dict[str, Any], rows: list[Row]) -> Path:
        """Write report.json, the facts and a row per photo as `results` -> its path."""
        path = self.folder / REPORT
        with replacing(path) as stream:
            stream.write(json.dumps({**facts, "results": [asdict(row) for row in rows]}, indent=1).encode())
        return path


def _prompt(name: str, stem: str, file: list[int], url: str, prompt_id: str) -> dict[str, Any]:
    """The journal's line for a prompt that is about to be sent."""
    return {"picture": name, "stem": stem, "file": file, "server": url, "prompt": prompt_id}


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, without an incomplete last one."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How two first lines differ, in words; empty where they are equal."""
    if before == now:
        return ""
    old, new = before["workflow"], now["workflow"]
    if {n: node["class_type"] for n, node in old.items()} != {n: node["class_type"] for n, node in new.items()}:
        return "another workflow"
    found = [
        f"{key} {old[node_id]['inputs'].get(key)!r} (now {new[node_id]['inputs'].get(key)!r}) of {node_name(old, node_id)}"
        for node_id in old
        for key in {**old[node_id]["inputs"], **new[node_id]["inputs"]}
        if old[node_id]["inputs"].get(key) != new[node_id]["inputs"].get(key)
    ]
    if before["photo_node"] != now["photo_node"]:
        found.append(f"--photo-node {before['photo_node']} (now {now['photo_node']})")
    return ", ".join(found)
