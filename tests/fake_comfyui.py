"""A small fake ComfyUI server in a thread: the HTTP routes that `stylerdalle queue` uses, and failures to test against."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

from aiohttp import web


class Fake:
    """Runs prompts one after another; its SaveImage returns the photo's own bytes.

    Attributes:
        seconds: the duration of a run.
        held: while this is set, no run ends.
        dies_after: after this many runs, it stops during the next one, like a killed process.
        comes_back: it then restarts at once, with an empty queue.
        fails: names of photos whose run ends in an error.
        broken: names of photos that LoadImage cannot read.
        refuses: if set, the answer to every POST /prompt.
    """

    def __init__(self, seconds: float = 0.0, dies_after: int | None = None, comes_back: bool = False):
        self.seconds, self.dies_after, self.comes_back = seconds, dies_after, comes_back
        self.held = False
        self.fails: set[str] = set()
        self.broken: set[str] = set()
        self.refuses: dict[str, Any] | None = None
        self.files: dict[str, bytes] = {}  # input and output files, by subfolder and name
        self.pending: list[tuple[str, dict[str, Any]]] = []
        self.running: str | None = None
        self.history: dict[str, Any] = {}
        self.ran: list[str] = []  # photos whose runs finished
        self.prompts: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.silent = False  # its websocket sends nothing
        self.authorization = ""  # if set, every request needs this header
        self.answers = 0  # if set, the HTTP status of every answer
        self.hangs = False  # it takes connections and never answers
        self.deaf = False  # it runs its queue, but does not answer requests
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.alive = False
        self.start()

    def start(self) -> None:
        """Start, or start again with nothing queued."""
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(10)

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._main(ready))
        if self.comes_back:
            self.comes_back = False
            asyncio.run(self._main(ready))

    def stop(self) -> None:
        if self.alive:
            self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(10)

    async def _main(self, ready: threading.Event) -> None:
        self.pending, self.running, self.history = [], None, {}
        self.connections: set[asyncio.Transport] = set()
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._listen])
        app.add_routes(
            [
                web.get("/system_stats", self._stats),
                web.post("/upload/image", self._upload),
                web.post("/prompt", self._prompt),
                web.get("/queue", self._queue),
                web.post("/queue", self._delete),
                web.post("/interrupt", self._interrupt),
                web.get("/history/{id}", self._history),
                web.get("/view", self._view),
                web.get("/ws", self._ws),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.alive = True
        ready.set()
        worker = asyncio.create_task(self._work())
        await self.stopping.wait()
        self.alive = False
        worker.cancel()
        for connection in self.connections:  # as when a process is killed: nobody waits for open websockets
            connection.abort()
        self.connections.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(runner.cleanup(), 5)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(0.002)
            if not self.pending:
                continue
            prompt, workflow = self.pending.pop(0)
            self.running = prompt
            photo = workflow["2"]["inputs"]["image"]
            await self._say("progress_state", {"prompt_id": prompt, "nodes": {"2": {"value": 1, "max": 1}}})
            end = time.monotonic() + self.seconds
            while (self.held or time.monotonic() < end) and self.running == prompt:
                await asyncio.sleep(0.002)
            if self.dies_after is not None and len(self.ran) >= self.dies_after:
                self.dies_after = None
                self.stopping.set()
                return
            name = photo.rpartition("/")[2]
            times = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 1250}]]
            status: dict[str, Any] = {"status_str": "success", "messages": times}
            if self.running != prompt:
                status = {"status_str": "error", "messages": [["execution_interrupted", {"node_id": "3"}]]}
            elif name in self.fails | self.broken:
                told = {"node_id": "2" if name in self.broken else "3", "exception_message": "no\nmemory"}
                status = {"status_str": "error", "messages": [["execution_error", told]]}
            self.files[f"out/{prompt}.png"] = self.files[photo]
            saved = {"filename": f"{prompt}.png", "subfolder": "out", "type": "output"}
            preview = {"filename": "preview.png", "subfolder": "", "type": "temp"}
            made = {"4": {"images": [saved] * workflow["4"]["inputs"].get("copies", 1)}, "5": {"images": [preview]}}
            self.history[prompt] = {"outputs": {**made, "6": {"text": ["score 0.5"]}}, "status": status}
            self.running = None
            self.ran.append(name)
            await self._say("executing", {"prompt_id": prompt, "node": None})

    async def _say(self, kind: str, data: dict[str, Any]) -> None:
        for ws in self.sockets:
            if not ws.closed and not self.silent:
                with contextlib.suppress(ConnectionError):  # a client that was killed: the run goes on, as in ComfyUI
                    await ws.send_json({"type": kind, "data": data})

    @web.middleware
    async def _listen(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.transport:
            self.connections.add(request.transport)
        if self.deaf:
            return web.Response(status=503)
        if self.hangs:
            await asyncio.sleep(3600)
        if self.answers:
            return web.Response(status=self.answers, headers={"Location": "https://me:hidden1@elsewhere/x"})
        if self.authorization and request.headers.get("Authorization") != self.authorization:
            return web.Response(status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {}})

    async def _upload(self, request: web.Request) -> web.Response:
        post = await request.post()
        sent: Any = post["image"]
        data, folder, name = sent.file.read(), post["subfolder"], Path(sent.filename)
        number, called = 0, name.name
        while self.files.get(f"{folder}/{called}", data) != data:
            number += 1
            called = f"{name.stem} ({number}){name.suffix}"
        self.files[f"{folder}/{called}"] = data
        return web.json_response({"name": called, "subfolder": folder, "type": "input"})

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuses is not None:
            return web.json_response(self.refuses, status=400)
        self.prompts.append(body["prompt"])
        self.pending.append((body["prompt_id"], body["prompt"]))
        return web.json_response({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})

    async def _queue(self, _: web.Request) -> web.Response:
        running = [[0, self.running, {}]] if self.running else []
        return web.json_response({"queue_running": running, "queue_pending": [[1, *item] for item in self.pending]})

    async def _delete(self, request: web.Request) -> web.Response:
        ids = (await request.json())["delete"]
        self.cancelled += ids
        self.pending = [item for item in self.pending if item[0] not in ids]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        if (await request.json())["prompt_id"] == self.running:
            self.running = None
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        prompt = request.match_info["id"]
        return web.json_response({prompt: self.history[prompt]} if prompt in self.history else {})

    async def _view(self, request: web.Request) -> web.Response:
        data = self.files.get(f"{request.query['subfolder']}/{request.query['filename']}")
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.sockets.append(ws)
        async for _ in ws:
            pass
        return ws


WORKFLOW = {
    "2": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "Photo"}},
    "3": {
        "class_type": "Translate",
        "inputs": {"image": ["2", 0], "prompt": "ukiyo-e", "strength": 1.0},
        "_meta": {"title": "Translate v1.5"},
    },
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "copies": 1}},
    "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    "6": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}, "_meta": {"title": "Score"}},
}


def write_workflow(path: Path) -> Path:
    path.write_text(json.dumps(WORKFLOW))
    return path
