"""A batch shared among ComfyUI servers: each takes the next photo when it is free; the photos of a lost server go to the others.

A photo is in one place at a time: it waits, or it is on one server. Only the run that is followed is downloaded, so each photo
is delivered once, even if a server that was lost has run it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from .auth import Secrets
from .journal import JOURNAL, NOT_TRIED, REPORT, Journal, Photo, Row, free
from .policy import Policy
from .results import Broken, Failed, outputs, seconds
from .server import SERVER_TIMEOUT, Lost, Refused, Server
from .workflow import Workflow

SERVER_PAUSE = (1.0, 15.0)  # s between attempts to reach a lost server: the first, and the longest
CANCEL_AGAIN = 1.0  # s


@dataclass(frozen=True)
class Listener:
    """What a batch calls while it runs."""

    row: Callable[[Row], None]  # a photo is done or given up
    problem: Callable[[str], None]  # a sentence for the user
    progress: Callable[[float], None]  # number of photos done, a fraction for those that run


class Batch:
    """Runs photos through a workflow.

    Args:
        photo_node: id of the workflow's node whose input `image` takes the photo.
        secrets: of the servers; they are sent to them and shown nowhere.
        photos: those to do, `stem` set (Journal.remaining).
        journal: open.
    """

    def __init__(
        self,
        workflow: Workflow,
        photo_node: str,
        photos: Sequence[Photo],
        journal: Journal,
        policy: Policy,
        listener: Listener,
        secrets: Secrets | None = None,
    ):
        self.secrets = secrets or Secrets()
        self.workflow, self.photo_node, self.journal = workflow, photo_node, journal
        self.policy, self.listener = policy, listener
        self.photos = list(photos)
        self.waiting = deque(photos)
        self.stems = {photo.stem.casefold() for photo in photos} | {stem.casefold() for stem in journal.stems.values()}
        self.rows: dict[str, Row] = {}  # by name, of photos done or given up
        self.running: dict[str, float] = {}  # by prompt id: the share of the run that is done
        self.retries = 0
        self.lost: dict[str, float | None] = {}  # by server URL: the time since when it is lost, None: it answers
        self.unfit: set[str] = set()  # URLs of servers that refuse the workflow
        self.changed = asyncio.Event()  # replaced at every change, see _notify

    async def run(self, urls: Sequence[str]) -> list[Row]:
        """Do every photo that can be done -> one row per photo. If cancelled, removes its prompts from the servers."""
        async with aiohttp.ClientSession(timeout=SERVER_TIMEOUT) as session:
            servers = [Server(url, session, self._progress, self.secrets) for url in urls]
            self.lost = dict.fromkeys(urls)
            tasks = [asyncio.create_task(self._attend(server)) for server in servers]
            attended: asyncio.Future[Any] = asyncio.gather(*tasks)
            ended = asyncio.create_task(self._end())
            try:
                await asyncio.wait((ended, attended), return_when=asyncio.FIRST_COMPLETED)
                if attended.done():
                    attended.result()  # raises the error that ended a task, such as a full disk
            finally:
                await stop(ended, attended, *tasks)
                await asyncio.gather(*(self._withdraw(server, self.photos) for server in servers))
        return [self.rows[photo.name] for photo in self.photos]

    @property
    def over(self) -> bool:
        """Whether every photo is done or given up."""
        return len(self.rows) == len(self.photos)

    # servers

    async def _attend(self, server: Server) -> None:
        """Keep a server busy until the batch is over; while it is lost, try to reach it again."""
        pause = SERVER_PAUSE[0]
        while not self.over and server.url not in self.unfit:
            try:
                await server.check()
            except Lost as lost:
                self._lose(server, lost)
                await self._sleep(pause)
                pause = min(2 * pause, SERVER_PAUSE[1])
                continue
            if self.lost[server.url] is not None:
                self.lost[server.url] = None
                self.listener.problem(f"{server.url} is back")
                self._notify()
            await self._work(server)
            pause = SERVER_PAUSE[0]
            if self.lost[server.url] is not None:
                await self._sleep(pause)

    async def _work(self, server: Server) -> None:
        """Run photos on a server, `in_flight` at a time, until it is lost or the batch is over."""
        listening = asyncio.create_task(server.listen())
        serving = [asyncio.create_task(self._serve(server)) for _ in range(self.policy.in_flight)]
        try:
            await self._withdraw(server, [photo for photo in self.photos if photo.name in self.rows])
            await asyncio.gather(*serving)
        finally:
            await stop(listening, *serving)

    async def _serve(self, server: Server) -> None:
        """Run photos on a server, one after another."""
        while photo := await self._take(server):
            try:
                await self._try(server, photo)
            except Lost as lost:
                self._lose(server, lost)
                self._return(server, photo, str(lost))
            except Failed as failed:
                broken = self.lost if isinstance(failed, Broken) else (server.url,)
                photo.failed |= dict.fromkeys(broken, str(failed))
                photo.prompt_ids.pop(server.url, None)
                self._return(server, photo, str(failed))
            except Refused as refused:
                photo.tries -= 1
                photo.prompt_ids.pop(server.url, None)
                self.waiting.appendleft(photo)
                if server.url not in self.unfit:
                    self.unfit.add(server.url)
                    self.listener.problem(self.secrets.hide(str(refused)))
                self._sweep()

    async def _take(self, server: Server) -> Photo | None:
        """Wait for the next photo for a server; None once the server is lost or unfit, or the batch is over."""
        while not self.over and self._usable(server.url):
            for photo in self.waiting:
                elsewhere = any(self._usable(url) for url in photo.prompt_ids if url != server.url)
                if server.url not in photo.failed and (server.url in photo.prompt_ids or not elsewhere):
                    self.waiting.remove(photo)
                    return photo
            await self.changed.wait()
        return None

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but no longer than the batch lasts."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._end(), seconds)

    async def _end(self) -> None:
        """Wait for the end of the batch."""
        while not self.over:
            await self.changed.wait()

    def _notify(self) -> None:
        """Wake all tasks that wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _withdraw(self, server: Server, photos: Sequence[Photo]) -> None:
        """Remove these photos' prompts from a server: they are done elsewhere, or no longer wanted."""
        prompt_ids = [prompt_id for photo in photos if (prompt_id := photo.prompt_ids.pop(server.url, None))]
        if prompt_ids and self.lost[server.url] is None:
            with contextlib.suppress(Lost, asyncio.TimeoutError):  # a server that is gone has no queue left
                await asyncio.wait_for(server.cancel(prompt_ids), 5)

    def _usable(self, url: str) -> bool:
        """Whether a server of this batch answers and accepts the workflow."""
        return self.lost.get(url, 0.0) is None and url not in self.unfit

    def _expected(self, url: str) -> bool:
        """Whether a server answers, or is still waited for."""
        since = self.lost[url]
        return url not in self.unfit and (since is None or time.monotonic() - since < self.policy.wait)

    def _lose(self, server: Server, lost: Lost) -> None:
        if self.lost[server.url] is None:
            self.lost[server.url] = time.monotonic()
            self.listener.problem(self.secrets.hide(str(lost)))
        self._sweep()

    # photos

    async def _try(self, server: Server, photo: Photo) -> None:
        """Run a photo on a server and fetch its outputs. Resumes the photo's earlier run on that server, if there is one."""
        photo.tries += 1
        prompt_id = photo.prompt_ids.get(server.url)
        if prompt_id is None or not await server.known(prompt_id):
            workflow = copy.deepcopy(self.workflow)
            workflow[self.photo_node]["inputs"]["image"] = await server.upload(photo.path)
            prompt_id = photo.prompt_ids[server.url] = str(uuid.uuid4())
            self.journal.add_prompt(photo, server.url, prompt_id)
            await server.queue(workflow, self.photo_node, prompt_id)
        try:
            entry = await server.follow(prompt_id, self.policy.poll)
        finally:
            self.running.pop(prompt_id, None)
        files, results = outputs(self.workflow, entry, self.photo_node)
        names = self._names(photo, files)
        for (_, file), name in zip(files, names, strict=True):
            await server.download(file, self.journal.folder / name)
        del photo.prompt_ids[server.url]
        self._finish(photo, server.url, names, seconds(entry), results)

    def _names(self, photo: Photo, files: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
        """Names of a photo's output files: the photo's stem; of several files also the node id and a number."""
        stems = [photo.stem]
        if len(files) != 1:
            tails = [re.sub(r"\W", "_", node_id) for node_id, _ in files]
            stems = [free(self.stems, f"{photo.stem}.{tail}-{tails[:i].count(tail) + 1}") for i, tail in enumerate(tails)]
        names = [stem + suffix(file["filename"]) for stem, (_, file) in zip(stems, files, strict=True)]
        return [f"_{name}" if name.casefold() in (JOURNAL, REPORT) else name for name in names]

    def _return(self, server: Server, photo: Photo, problem: str) -> None:
        """Put a photo that a server did not finish back into the waiting line."""
        photo.problem, photo.server = problem, server.url
        self.retries += 1
        self.waiting.appendleft(photo)
        self._sweep()

    def _sweep(self) -> None:
        """Give up photos without tries left, or without a server that may do them. Then wake the servers for the others."""
        for photo in list(self.waiting):
            if photo.tries >= self.policy.tries:
                problem = photo.problem
            elif not any(self._expected(url) and url not in photo.failed for url in self.lost):
                problem = photo.problem or NOT_TRIED
            else:
                continue
            self.waiting.remove(photo)
            self._finish(photo, photo.server, error=problem)
        self._notify()

    def _finish(
        self,
        photo: Photo,
        url: str | None,
        files: Sequence[str] = (),
        took: float | None = None,
        results: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Record that a photo is done, or with `error` that it is given up."""
        shown, said = self.secrets.hide_all(results or {}), None if error is None else self.secrets.hide(error)
        row = Row(photo.name, url, took, photo.tries, list(files), said, shown, photo.file, photo.stem)
        self.journal.add_row(row)
        if error is not None:  # runs on servers out of reach may still finish: the next command looks for them
            for server, prompt_id in photo.prompt_ids.items():
                self.journal.add_prompt(photo, server, prompt_id)
        self.rows[photo.name] = row
        self.listener.row(row)
        self._show()
        self._notify()

    def _progress(self, prompt_id: str, nodes: float) -> None:
        self.running[prompt_id] = min(nodes / len(self.workflow), 1.0)
        self._show()

    def _show(self) -> None:
        self.listener.progress(len(self.rows) + sum(self.running.values()))


def suffix(filename: str) -> str:
    """The suffix of a file name that a server gave, letters and digits only; empty where there is none."""
    found = re.search(r"\.\w+$", filename)
    return found[0] if found else ""


async def stop(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended.

    They are cancelled again after a while: before Python 3.12, `asyncio.wait_for` loses a cancel that comes together with its
    result, and the task would go on as if nothing had happened.
    """
    going = {task for task in tasks if not task.done()}
    while going:
        for task in going:
            task.cancel()
        going = (await asyncio.wait(going, timeout=CANCEL_AGAIN))[1]
    await asyncio.gather(*tasks, return_exceptions=True)
