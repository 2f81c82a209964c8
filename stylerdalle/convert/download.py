"""Download one file over HTTP: resumed after an interruption, checked before it counts as complete.

requests reads proxy settings (HTTPS_PROXY). HF_ENDPOINT replaces https://huggingface.co, as in Hugging Face's tools.

The file is written to PART and grows there over several attempts, with a note of what it is part of in PART.json. So it is not
written by storage.replacing, which drops what an interrupted attempt wrote.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from .. import storage
from ..progress import Progress

TRIES = 4  # in a row without new bytes
RETRY_PAUSE = 1.0  # seconds before the second try; doubles before each further one
READ_TIMEOUT = (15, 60)  # seconds to connect, and between bytes
BLOCK = 1 << 16  # bytes; an interruption loses at most one block
LARGEST = 4 << 30  # bytes of a file of unknown size
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """A download source, with the published hash and size where there are any."""

    url: str
    sha256: str | None = None
    bytes: int | None = None


class Unavailable(ValueError):
    """This source cannot provide the file; another may."""


def download(address: Address, part: Path, progress: Progress = lambda done, total: None) -> str:
    """Download a file to `part` -> its sha256. Resumes an interrupted download, if the file is still the same.

    Raises:
        Unavailable: the server has no such file, or another than the published one (nothing is kept).
        ValueError: the connection keeps breaking (the part is kept for the next time), or the disk is too small.
    """
    url = address.url
    if endpoint := os.environ.get("HF_ENDPOINT"):
        url = url.replace("https://huggingface.co/", f"{endpoint.rstrip('/')}/")
    part.parent.mkdir(parents=True, exist_ok=True)
    transfer = _Transfer(url, address, part, progress)
    tries = 0
    while True:
        before = transfer.have()
        try:
            transfer.resume()
            return transfer.check()
        except Unavailable:
            discard(part)
            raise
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, _Interrupted) as error:
            tries = 1 if transfer.have() > before else tries + 1
            log.info("%s was interrupted at %d bytes: %s", url, transfer.have(), error)
            if tries >= TRIES:
                if not transfer.have():
                    discard(part)
                    raise Unavailable(f"{url} cannot be reached ({_reason(error)})") from error
                raise ValueError(
                    f"{url} keeps breaking off ({_reason(error)}): {transfer.have():,} bytes are kept, run the same command "
                    "again to continue"
                ) from error
            time.sleep(RETRY_PAUSE * 2 ** (tries - 1))
        except requests.RequestException as error:  # bad address, endless redirects
            raise Unavailable(f"{url} cannot be downloaded ({_reason(error)})") from error


def discard(part: Path) -> None:
    """Remove a part and its note."""
    for path in (part, _note(part)):
        path.unlink(missing_ok=True)


class _Interrupted(Exception):
    """The transfer ended early, or the server is busy: it can be tried again."""


class _Transfer:
    """The download of one file. The note beside the part says what it is part of: url, etag, total size, published hash."""

    def __init__(self, url: str, address: Address, part: Path, progress: Progress):
        self.url, self.address, self.part, self.progress = url, address, part, progress
        self.note: dict[str, Any] = {}
        if part.is_file() and _note(part).is_file():
            with suppress(ValueError):
                self.note = json.loads(_note(part).read_text())
        if not isinstance(self.note, dict) or self.note.get("url") != url:
            self.restart()
        self.total: int | None = self.note.get("total")
        self.published: str | None = address.sha256 or self.note.get("published")

    def have(self) -> int:
        """Bytes that are there."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def restart(self) -> None:
        """Start again from the first byte."""
        discard(self.part)
        self.note, self.total = {}, None

    def resume(self) -> None:
        """Request the missing bytes and append them as they arrive."""
        have = self.have()
        if have and have == self.total:
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.note.get("etag"):
                headers["If-Range"] = self.note["etag"]
        with requests.get(self.url, headers=headers, stream=True, timeout=READ_TIMEOUT) as response:
            done = self._accept(response, have)
            most = self.total or LARGEST
            with self.part.open("ab" if done else "wb") as stream:
                for block in response.iter_content(BLOCK):
                    done += len(block)
                    if done > most:
                        raise Unavailable(f"{self.url} sends more than the expected {most} bytes")
                    stream.write(block)
                    self.progress(done, self.total or done)
        if self.total is not None and done < self.total:
            raise _Interrupted(f"{done} of {self.total} bytes arrived")

    def _accept(self, response: requests.Response, have: int) -> int:
        """Check the headers of an answer and update the note -> the position in the file of the body's first byte."""
        status = response.status_code
        if status in (408, 425, 429) or status >= 500:
            raise _Interrupted(f"the server answers {status} {response.reason}")
        if status == 416 and have:
            self.restart()
            raise _Interrupted("the file on the server has become shorter")
        if status not in (200, 206):
            raise Unavailable(f"{self.url} answers {status} {response.reason}")
        if "text/html" in response.headers.get("Content-Type", ""):
            raise Unavailable(f"{self.url} answers with a web page, not with the file")
        start, size = 0, response.headers.get("Content-Length", "")
        if status == 206:
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            start, size = (int(place[1]), place[2]) if place else (-1, "")
        total = int(size) if size.isdigit() and "Content-Encoding" not in response.headers else None
        etag = response.headers.get("ETag", "")
        etag = "" if etag.startswith("W/") else etag  # a weak ETag does not promise the same bytes
        if start:
            before = (self.note.get("etag") or etag, self.note.get("total") or total)
            if start != have or before != (etag or self.note.get("etag", ""), total):
                self.restart()
                raise _Interrupted("the file on the server has changed")
        linked = [step.headers.get("X-Linked-Etag", "").strip('"') for step in response.history]  # Hugging Face's: the sha256
        self.published = self.address.sha256 or next((tag for tag in linked if re.fullmatch(r"[0-9a-f]{64}", tag)), None)
        self.total = total
        want = self.address.bytes
        if want and total and want != total:
            raise Unavailable(f"{self.url} has {total} bytes, but the published file {want}")
        free = shutil.disk_usage(self.part.parent).free
        if (total or 0) - start > free:
            raise ValueError(f"{self.part.parent} has {free / 1e6:.0f} MB free, but {self.url} needs {(total or 0) / 1e6:.0f} MB")
        self.note = {"url": self.url, "etag": etag, "total": total, "published": self.published}
        _note(self.part).write_text(json.dumps(self.note))
        return start

    def check(self) -> str:
        """Check that the complete file is the published one -> its sha256."""
        have, want, found = self.have(), self.address.bytes, storage.sha256(self.part)
        if (want and have != want) or (self.published and found != self.published):
            raise Unavailable(
                f"{self.url} sent another file than the published one ({have} bytes, sha256 {found}; need "
                f"{f'{want} bytes, ' if want else ''}sha256 {self.published or 'any'}), it was removed"
            )
        return found


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _reason(error: Exception) -> str:
    """The innermost cause, which requests wraps in three layers."""
    text = str(error)
    found = re.findall(r"\[Errno -?\d+\] ([^'\")]+)|Caused by \w+\([^)]*?['\"]([^'\"]+)['\"]", text)
    return next((a or b for a, b in reversed(found)), text)[:160]
