"""One ComfyUI server over HTTP and its websocket.

Routes: POST /upload/image, /prompt, /queue, /interrupt; GET /system_stats, /queue, /history/ID, /view, /ws (ComfyUI's server.py).
The websocket only says when to look and how far a run is; the history is what counts, and is also asked now and then, so that
a message that never comes costs no more than that.
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

import aiohttp

from ..storage import replacing
from .workflow import Workflow, node_name

FOLDER = "stylerdalle-queue"  # of the uploads, below the server's input folder
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)  # a connection's; errors of our own disk are others
log = logging.getLogger(__name__)


class Lost(Exception):
    """The server does not answer, or has forgotten what it was given."""


class Refused(Exception):
    """The server does not take the workflow, whatever the photo."""


class Failed(Exception):
    """The run of one photo failed."""


class Host:
    """One server.

    Args:
        url: such as http://127.0.0.1:8188.
        progress: called with (prompt id, how many nodes are done, in fractions) as a run goes on.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, progress: Callable[[str, float], None]):
        self.url, self.session, self.progress = url, session, progress
        self.client = uuid.uuid4().hex
        self.news: dict[str, asyncio.Event] = {}  # by prompt id: set when a run may be over

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self.session.request(method, self.url + path, **options) as answer:
                if answer.status >= 500:
                    raise Lost(f"{self.url} answers {path} with {answer.status} {answer.reason}: look at that server's log")
                yield answer
        except BROKEN as error:
            raise Lost(f"{self.url} does not answer ({reason(error)}): is ComfyUI running there?") from error

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        """(status, what the answer says or None where that is no JSON)."""
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
        """Raises Lost unless a ComfyUI answers."""
        await self._get("/system_stats")

    async def upload(self, path: Path) -> str:
        """Send a photo -> its name for LoadImage: where the server has another file of its name, one that is free."""
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise Failed(f"it cannot be read ({error.strerror})") from error
        form = aiohttp.FormData()
        name = re.sub(r"[^\w.-]+", "_", path.name, flags=re.ASCII)
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        form.add_field("subfolder", FOLDER)
        timeout = aiohttp.ClientTimeout(total=600)  # slow lines
        status, found = await self._json("POST", "/upload/image", data=form, timeout=timeout)
        if not isinstance(found, dict) or "name" not in found:
            raise Failed(f"{self.url} does not take the file, {len(data) / 1e6:.1f} MB ({status}): see its --max-upload-size")
        return f"{found['subfolder']}/{found['name']}" if found.get("subfolder") else str(found["name"])

    async def queue(self, workflow: Workflow, number: str, prompt: str) -> None:
        """Queue a workflow under the prompt id `prompt`; `number` is its node for the photo.

        Raises:
            Refused: the server lacks something that the workflow needs, or does not allow a value.
            Failed: what it refuses is the photo alone.
        """
        body = {"prompt": workflow, "prompt_id": prompt, "client_id": self.client}
        self.news[prompt] = asyncio.Event()
        status, found = await self._json("POST", "/prompt", json=body)
        found = found if isinstance(found, dict) else {}
        errors = found.get("node_errors") or {}
        if status == 200 and found.get("prompt_id") == prompt and not errors:
            return
        self.news.pop(prompt)
        if status == 200:  # what is right in a workflow is run even where another part is wrong
            await self.cancel([str(found.get("prompt_id"))])
        if status == 200 and not errors:
            raise Refused(f"{self.url} gives prompts ids of its own: ComfyUI 0.3.64 or newer is needed")
        said = sentence(workflow, found) or f"HTTP {status}"
        if set(errors) == {number}:
            raise Failed(f"{said} ({self.url})")
        raise Refused(f"{self.url} refuses the workflow: {said}")

    async def waits(self, prompt: str) -> bool:
        """Whether a prompt runs or is queued."""
        found = await self._get("/queue")
        return any(item[1] == prompt for item in [*found["queue_running"], *found["queue_pending"]])

    async def entry(self, prompt: str) -> dict[str, Any] | None:
        """The history's entry of a prompt that is over: `outputs` by node id, `status`; else None."""
        return (await self._get(f"/history/{prompt}")).get(prompt)

    async def known(self, prompt: str) -> bool:
        """Whether a prompt of an earlier time is still to come, or came out well."""
        if await self.waits(prompt):  # before the history: a run goes from the one to the other
            return True
        entry = await self.entry(prompt)
        return entry is not None and succeeded(entry)

    async def follow(self, prompt: str, poll: float) -> dict[str, Any]:
        """Wait until a prompt is over -> its entry of the history. Raises Lost where the server has forgotten it."""
        news = self.news.setdefault(prompt, asyncio.Event())
        try:
            while True:
                waits = news.is_set() or await self.waits(prompt)
                news.clear()
                if entry := await self.entry(prompt):
                    return entry
                if not waits:
                    raise Lost(f"{self.url} has forgotten what it was given: it was restarted, or its queue was cleared")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), poll)
        finally:
            self.news.pop(prompt, None)

    async def listen(self) -> None:
        """Follow the websocket until cancelled; where it breaks it is opened again."""
        while True:
            try:
                address = f"{self.url}/ws?clientId={self.client}"
                async with self.session.ws_connect(address, heartbeat=30, max_msg_size=0) as socket:
                    async for message in socket:
                        if message.type == aiohttp.WSMsgType.TEXT:  # the others are previews
                            self._hear(json.loads(message.data))
            except (*BROKEN, ValueError) as error:
                log.info("the websocket of %s broke: %s", self.url, error)
            await asyncio.sleep(1)

    def _hear(self, message: dict[str, Any]) -> None:
        data = message.get("data") or {}
        prompt = data.get("prompt_id")
        if prompt not in self.news:
            return
        if message["type"] == "executing" and data.get("node") is None:  # sent when the history has the entry
            self.news[prompt].set()
        elif message["type"] == "progress_state":
            self.progress(prompt, sum(node["value"] / (node["max"] or 1) for node in data["nodes"].values()))

    async def download(self, file: dict[str, str], path: Path) -> None:
        """Fetch an output file to `path`, which is never half-written."""
        query = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        path.parent.mkdir(parents=True, exist_ok=True)
        async with self._answer("GET", "/view", params=query) as answer:
            if answer.status != 200:
                raise Failed(f"{self.url} no longer has its output {query['filename']} ({answer.status})")
            with replacing(path) as stream:
                async for chunk in answer.content.iter_chunked(1 << 20):
                    stream.write(chunk)

    async def cancel(self, prompts: Sequence[str]) -> None:
        """Take prompts out of the queue, and stop the one that runs; other people's are left."""
        await self._json("POST", "/queue", json={"delete": list(prompts)})
        for prompt in prompts:
            await self._json("POST", "/interrupt", json={"prompt_id": prompt})


def reason(error: BaseException) -> str:
    """Why a connection broke, in the system's words: aiohttp's own have addresses and options in them."""
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)  # below 0: a name that is not found
    return str(error) or "it took too long"


def succeeded(entry: dict[str, Any]) -> bool:
    return (entry.get("status") or {}).get("status_str") == "success"


def seconds(entry: dict[str, Any]) -> float | None:
    """How long a run took by the server's own clock."""
    times = [data["timestamp"] for _, data in entry["status"].get("messages", []) if "timestamp" in data]
    return round((max(times) - min(times)) / 1000, 3) if times else None


def outputs(workflow: Workflow, entry: dict[str, Any]) -> tuple[list[tuple[str, dict[str, str]]], dict[str, Any]]:
    """What a run made: ([(node id, file)], {node's name: other results, such as texts}).

    Previews count only where nothing was saved.

    Raises:
        Failed: the run ended in an error, or made nothing.
    """
    if not succeeded(entry):
        raise Failed(failure(workflow, entry))
    files: list[tuple[str, dict[str, str]]] = []
    results: dict[str, Any] = {}
    for number, made in entry["outputs"].items():
        for key, values in made.items():
            items = values if isinstance(values, list) else [values]
            found = [item for item in items if isinstance(item, dict) and "filename" in item]
            files += [(number, item) for item in found]
            if items and not found and key != "animated":  # which says of each file whether it moves
                results.setdefault(node_name(workflow, number), {})[key] = values
    saved = [(number, file) for number, file in files if file.get("type") == "output"]
    if not files and not results:
        raise Failed("the workflow made nothing: give it an output node, such as SaveImage")
    return saved or files, results


def failure(workflow: Workflow, entry: dict[str, Any]) -> str:
    """The sentence for a run that ended badly: its node and message."""
    for kind, data in reversed((entry.get("status") or {}).get("messages", [])):
        if kind == "execution_error":
            return f"{node_name(workflow, data['node_id'])}: {' '.join(data['exception_message'].split())}"
        if kind == "execution_interrupted":
            return f"{node_name(workflow, data['node_id'])}: it was cancelled on the server"
    return "the server does not say why it failed"


def sentence(workflow: Workflow, answer: dict[str, Any]) -> str:
    """What a server that refuses a workflow says, in one sentence."""
    parts = []
    for number, found in (answer.get("node_errors") or {}).items():
        said = [": ".join(filter(None, (error.get("message"), error.get("details")))) for error in found.get("errors", [])]
        parts.append(f"{node_name(workflow, number)}: {', '.join(said)}")
    error = answer.get("error") or {}
    if not parts and isinstance(error, dict):
        parts = [" ".join(filter(None, (error.get("message"), error.get("details"))))]
    return " ".join("; ".join(parts or [str(error)]).split())
