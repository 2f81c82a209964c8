"""One ComfyUI server over HTTP and its websocket.

Routes: POST /upload/image, /prompt, /queue, /interrupt; GET /system_stats, /queue, /history/ID, /view, /ws (ComfyUI's server.py).
The history decides whether a run is over. The websocket only reports progress and says when to read the history, which is also
read at intervals: a lost message costs one interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ..storage import replacing
from .auth import Secrets, take_userinfo
from .results import Broken, Failed, refusal, succeeded
from .workflow import Workflow

FOLDER = "stylerdalle-queue"  # for uploads, below the server's input folder
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)  # errors of the connection, not of the local disk
SERVER_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=15)  # s; a server that loads a model may not answer for a while
UPLOAD_TIMEOUT = aiohttp.ClientTimeout(total=600)  # s; for slow connections
log = logging.getLogger(__name__)


class Lost(Exception):
    """The server does not answer, or no longer has what was queued on it."""


class Refused(Exception):
    """The server does not accept the workflow, whatever the photo."""


class Server:
    """One ComfyUI server.

    Args:
        url: such as http://127.0.0.1:8188.
        progress: called with (prompt id, number of nodes done, a fraction for the node that runs) during a run.
    """

    def __init__(
        self, url: str, session: aiohttp.ClientSession, progress: Callable[[str, float], None], secrets: Secrets | None = None
    ):
        self.url, self.session, self.progress = url, session, progress
        self.headers = secrets.header(url) if secrets else {}
        self.client = uuid.uuid4().hex
        self.news: dict[str, asyncio.Event] = {}  # by prompt id: set when the run may be over

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            # no redirects: they would carry the photo, and could carry the password, to another place
            given = {"headers": self.headers, "allow_redirects": False, **options}
            async with self.session.request(method, self.url + path, **given) as answer:
                if why := refused(answer):
                    raise Lost(f"{self.url} {why}")
                yield answer
        except BROKEN as error:
            raise Lost(f"{self.url} {broken(error)}") from error

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        """(HTTP status, the answer's JSON, or None where it is not JSON)."""
        async with self._answer(method, path, **options) as answer:
            text = await answer.read()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, None

    async def _get(self, path: str) -> dict[str, Any]:
        status, found = await self._json("GET", path)
        if status != 200 or not isinstance(found, dict):
            raise Lost(f"{self.url} is not a ComfyUI (it answers {path} with {status}): check the address")
        return found

    async def check(self) -> None:
        """Raise Lost unless a ComfyUI answers."""
        await self._get("/system_stats")

    async def upload(self, path: Path) -> str:
        """Send a photo -> its name for LoadImage. The server picks a new name where it has another file of that name."""
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise Broken(f"it cannot be read ({error.strerror})") from error
        form = aiohttp.FormData()
        name = re.sub(r"[^\w.-]+", "_", path.name, flags=re.ASCII)
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        form.add_field("subfolder", FOLDER)
        status, found = await self._json("POST", "/upload/image", data=form, timeout=UPLOAD_TIMEOUT)
        if not isinstance(found, dict) or "name" not in found:
            raise Failed(f"{self.url} rejects the file of {len(data) / 1e6:.1f} MB (HTTP {status}): see its --max-upload-size")
        return f"{found['subfolder']}/{found['name']}" if found.get("subfolder") else str(found["name"])

    async def queue(self, workflow: Workflow, photo_node: str, prompt_id: str) -> None:
        """Queue a workflow under a prompt id of ours.

        Args:
            photo_node: id of the node that takes the photo.

        Raises:
            Refused: the server lacks something that the workflow needs, or does not allow a value.
            Failed: the server refuses the photo alone.
        """
        body = {"prompt": workflow, "prompt_id": prompt_id, "client_id": self.client}
        self.news[prompt_id] = asyncio.Event()
        status, found = await self._json("POST", "/prompt", json=body)
        found = found if isinstance(found, dict) else {}
        errors = found.get("node_errors") or {}
        if status == 200 and found.get("prompt_id") == prompt_id and not errors:
            return
        self.news.pop(prompt_id)
        if status == 200:  # ComfyUI runs the valid outputs of a workflow even where others are invalid
            await self.cancel([str(found.get("prompt_id"))])
        if status == 200 and not errors:
            raise Refused(f"{self.url} assigns its own prompt ids: ComfyUI 0.3.64 or newer is needed")
        why = refusal(workflow, found) or f"HTTP {status}"
        if set(errors) == {photo_node}:
            raise Broken(f"{why} ({self.url})")
        raise Refused(f"{self.url} refuses the workflow: {why}")

    async def pending(self, prompt_id: str) -> bool:
        """Whether a prompt runs or is queued."""
        found = await self._get("/queue")
        return any(item[1] == prompt_id for item in [*found["queue_running"], *found["queue_pending"]])

    async def entry(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a finished prompt, with `outputs` by node id and `status`; None for any other."""
        return (await self._get(f"/history/{prompt_id}")).get(prompt_id)

    async def known(self, prompt_id: str) -> bool:
        """Whether a prompt queued earlier is still pending, or has succeeded."""
        if await self.pending(prompt_id):  # asked before the history: a run moves from the queue to the history
            return True
        entry = await self.entry(prompt_id)
        return entry is not None and succeeded(entry)

    async def follow(self, prompt_id: str, poll: float) -> dict[str, Any]:
        """Wait until a prompt is over -> its history entry. Raises Lost where the server no longer knows the prompt."""
        news = self.news.setdefault(prompt_id, asyncio.Event())
        try:
            while True:
                pending = news.is_set() or await self.pending(prompt_id)
                news.clear()
                if entry := await self.entry(prompt_id):
                    return entry
                if not pending:
                    raise Lost(f"{self.url} no longer has the photos queued on it: it was restarted, or its queue was cleared")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), poll)
        finally:
            self.news.pop(prompt_id, None)

    async def listen(self) -> None:
        """Read the websocket until cancelled, and reopen it when it breaks."""
        while True:
            try:
                address = f"{self.url}/ws?clientId={self.client}"
                async with self.session.ws_connect(address, headers=self.headers, heartbeat=30, max_msg_size=0) as socket:
                    async for message in socket:
                        if message.type == aiohttp.WSMsgType.TEXT:  # binary messages are previews
                            self._hear(json.loads(message.data))
            except (*BROKEN, ValueError) as error:
                log.info("the websocket of %s broke: %s", self.url, error)
            await asyncio.sleep(1)

    def _hear(self, message: dict[str, Any]) -> None:
        data = message.get("data") or {}
        prompt_id = data.get("prompt_id")
        if prompt_id not in self.news:
            return
        if message["type"] == "executing" and data.get("node") is None:  # sent when the history has the entry
            self.news[prompt_id].set()
        elif message["type"] == "progress_state":
            self.progress(prompt_id, sum(node["value"] / (node["max"] or 1) for node in data["nodes"].values()))

    async def download(self, file: dict[str, str], path: Path) -> None:
        """Fetch an output file to `path`, atomically."""
        query = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        path.parent.mkdir(parents=True, exist_ok=True)
        async with self._answer("GET", "/view", params=query) as answer:
            if answer.status != 200:
                raise Failed(f"{self.url} no longer has its output {query['filename']} (HTTP {answer.status})")
            with replacing(path) as stream:
                async for chunk in answer.content.iter_chunked(1 << 20):
                    stream.write(chunk)

    async def cancel(self, prompt_ids: Sequence[str]) -> None:
        """Remove these prompts from the queue and stop the one that runs; other prompts are left alone."""
        await self._json("POST", "/queue", json={"delete": list(prompt_ids)})
        for prompt_id in prompt_ids:
            await self._json("POST", "/interrupt", json={"prompt_id": prompt_id})


def find_servers(urls: Sequence[str], secrets: Secrets | None = None) -> list[str]:
    """Normalised URLs without repeats; user names and passwords in them go to `secrets`.

    Raises:
        ValueError: one is not an address. The message does not show what could be a password.
    """
    found = []
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"[\s?#]", url)
        except ValueError:  # such as a port above 65535
            right = False
        if not right:
            shown = re.sub(r"//[^/]*@", "//***@", re.sub(r"[?#].*", "?***", url, flags=re.DOTALL))
            raise ValueError(f"--server {shown!r} is not an address: give one such as http://127.0.0.1:8188")
        plain = take_userinfo(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", secrets or Secrets())
        found.append(plain)
    return list(dict.fromkeys(found))


async def check_servers(urls: Sequence[str], secrets: Secrets | None = None) -> None:
    """Contact all servers until one answers as a ComfyUI. Raises ValueError where none does."""
    async with aiohttp.ClientSession(timeout=SERVER_TIMEOUT) as session:
        checks = [asyncio.create_task(Server(url, session, lambda *_: None, secrets).check()) for url in urls]
        problems = dict[str, None]()
        try:
            for check in asyncio.as_completed(checks):
                try:
                    await check
                    return  # a server that is dead or slow does not delay the others
                except Lost as lost:
                    problems[str(lost)] = None
        finally:
            for task in checks:
                task.cancel()
            await asyncio.gather(*checks, return_exceptions=True)
    listed = "; ".join(problems)
    raise ValueError(listed if len(urls) == 1 else f"none of {len(urls)} servers can be used: {listed}")


def refused(answer: aiohttp.ClientResponse) -> str:
    """Why an answer is not a ComfyUI's own, as the end of a sentence about the server; empty where it may be."""
    status, said = answer.status, f"{answer.status} {answer.reason}"
    if status in (401, 403):
        return f"wants a password or token, or another one ({said}): give it with --auth"
    if status == 407:
        return f"is behind a proxy that wants a password ({said}): reach the server without it"
    if status in (301, 302, 303, 307, 308):
        place = urlsplit(answer.headers.get("Location", ""))
        return (
            f"sends to another address ({said}): give that one, {place.scheme}://{place.netloc.rpartition('@')[2]}, as --server"
        )
    if status in (502, 503, 504):
        return f"is a proxy that does not reach ComfyUI ({said}): is ComfyUI running behind it?"
    return f"answers {answer.url.path} with {said}: look at that server's log" if status >= 500 else ""


def broken(error: BaseException) -> str:
    """What a broken connection means, as the end of a sentence about the server."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"has a TLS certificate that is not trusted ({getattr(error.certificate_error, 'verify_message', '')}): fix it there"
        )
    if isinstance(error, aiohttp.ClientSSLError) or "SSL" in type(error).__name__:
        return "does not speak TLS as asked for: is its address http:// and not https://?"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"is behind a proxy that refuses ({error.status}): reach the server without it"
    return f"does not answer ({reason(error)}): is ComfyUI running there?"


def reason(error: BaseException) -> str:
    """Why a connection broke, in the operating system's words: aiohttp's own contain addresses and options."""
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)  # below 0: the name was not resolved
    return str(error) or "timed out"
