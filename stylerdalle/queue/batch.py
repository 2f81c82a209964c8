"""A batch shared among ComfyUI servers: each takes the next photo when it is free, and what a lost one had goes to another.

A photo is in one place at a time, waiting or on one server, and only the run that is followed is downloaded: each photo comes
out once, though a server that was lost may have run it for nothing.
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
from urllib.parse import urlsplit

import aiohttp

from ..settings import setting
from . import server as runs
from .journal import Journal, Picture, Row, free
from .server import Failed, Host, Lost, Refused
from .workflow import Workflow

NOT_TRIED = "no server is left that could do it"
PAUSE = (1.0, 15.0)  # s between looks at a lost server, at first and at most
SESSION = aiohttp.ClientTimeout(total=60, connect=15)  # s; a server that loads a model can be deaf for long


@dataclass(frozen=True)
class Policy:
    """How servers are used."""

    in_flight: int = setting(2, "photos a server has at a time: one runs, the others are there when it is done")
    tries: int = setting(3, "at most, a photo, where servers are lost; a photo that fails is tried once on each server")
    wait: float = setting(120.0, "seconds a lost server is waited for, where no other can do the work")
    poll: float = setting(2.0, "seconds between looks at a run that says nothing")

    def __post_init__(self) -> None:
        for name in ("in_flight", "tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not self.wait >= 0 or not self.poll > 0:
            raise ValueError(f"wait is {self.wait} and poll {self.poll}: seconds are needed, for poll more than 0")


@dataclass(frozen=True)
class Told:
    """What a batch calls as it goes on."""

    row: Callable[[Row], None]  # a photo is done or given up
    problem: Callable[[str], None]  # a sentence for the user
    progress: Callable[[float], None]  # how many photos are done, in fractions


def find_servers(urls: Sequence[str]) -> list[str]:
    """The URLs in one form, each once. Raises ValueError for what is none."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"[\s?#]", url)
        except ValueError:  # such as a port above 65535
            right = False
        if not right:
            raise ValueError(f"--server {url!r} is not an address: give one such as http://127.0.0.1:8188")
        found.append(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}")
    return list(dict.fromkeys(found))


async def reach(urls: Sequence[str]) -> None:
    """Look at each server once. Raises ValueError where none is there."""
    async with aiohttp.ClientSession(timeout=SESSION) as session:
        checks = [Host(url, session, lambda *_: None).check() for url in urls]
        problems = [str(lost) for lost in await asyncio.gather(*checks, return_exceptions=True) if lost]
    if len(problems) == len(urls):
        raise ValueError(problems[0] if len(urls) == 1 else f"none of {len(urls)} servers can be used: {'; '.join(problems)}")


class Batch:
    """Run pictures through a workflow.

    Args:
        workflow: its node `number` takes the photo as input `image`.
        pictures: those to do, `stem` set (Journal.left).
        journal: open.
    """

    def __init__(
        self, workflow: Workflow, number: str, pictures: Sequence[Picture], journal: Journal, policy: Policy, told: Told
    ):
        self.workflow, self.number, self.journal, self.policy, self.told = workflow, number, journal, policy, told
        self.pictures = list(pictures)
        self.waiting = deque(pictures)
        self.stems = {picture.stem.casefold() for picture in pictures} | {stem.casefold() for stem in journal.stems.values()}
        self.rows: dict[str, Row] = {}  # of photos done or given up
        self.shares: dict[str, float] = {}  # by prompt id: how far a run is
        self.again = 0  # how often a server did not bring a photo to an end
        self.lost: dict[str, float | None] = {}  # server: since when; None is there
        self.unfit: set[str] = set()  # servers that do not take the workflow
        self.news = asyncio.Event()

    async def run(self, urls: Sequence[str]) -> list[Row]:
        """Do all that can be done -> a row a picture. Cancelling it takes back what is queued."""
        async with aiohttp.ClientSession(timeout=SESSION) as session:
            servers = [Host(url, session, self._progress) for url in urls]
            self.lost = dict.fromkeys(urls)
            tending = [asyncio.create_task(self._tend(host)) for host in servers]
            tended: asyncio.Future[Any] = asyncio.gather(*tending)
            ended = asyncio.create_task(self._end())
            try:
                await asyncio.wait((ended, tended), return_when=asyncio.FIRST_COMPLETED)
                if tended.done():
                    tended.result()  # raises what one of them raised, such as a full disk
            finally:
                await stop(ended, tended, *tending)
                await asyncio.gather(*(self._withdraw(host, self.pictures) for host in servers))
        return [self.rows[picture.name] for picture in self.pictures]

    @property
    def over(self) -> bool:
        return len(self.rows) == len(self.pictures)

    # a server

    async def _tend(self, host: Host) -> None:
        """Keep a server at work, and look for it where it is lost, until the batch is over."""
        pause = PAUSE[0]
        while not self.over and host.url not in self.unfit:
            try:
                await host.check()
            except Lost as lost:
                self._lose(host, lost)
                await self._sleep(pause)
                pause = min(2 * pause, PAUSE[1])
                continue
            if self.lost[host.url] is not None:
                self.lost[host.url] = None
                self.told.problem(f"{host.url} is back")
                self._tell()
            await self._work(host)
            pause = PAUSE[0]
            if self.lost[host.url] is not None:
                await self._sleep(pause)

    async def _work(self, host: Host) -> None:
        """Give a server photos until it is lost or the batch is over."""
        listening = asyncio.create_task(host.listen())
        serving = [asyncio.create_task(self._serve(host)) for _ in range(self.policy.in_flight)]
        try:
            await self._withdraw(host, [picture for picture in self.pictures if picture.name in self.rows])
            await asyncio.gather(*serving)
        finally:
            await stop(listening, *serving)

    async def _serve(self, host: Host) -> None:
        while picture := await self._take(host):
            try:
                await self._try(host, picture)
            except Lost as lost:
                self._lose(host, lost)
                self._return(host, picture, str(lost))
            except Failed as failed:
                picture.failed[host.url] = str(failed)
                picture.prompts.pop(host.url, None)
                self._return(host, picture, str(failed))
            except Refused as refused:
                picture.tries -= 1
                picture.prompts.pop(host.url, None)
                self.waiting.appendleft(picture)
                if host.url not in self.unfit:
                    self.unfit.add(host.url)
                    self.told.problem(str(refused))
                self._sweep()

    async def _take(self, host: Host) -> Picture | None:
        """The next photo for a server; None where it is lost or unfit, or the batch is over."""
        while not self.over and self.lost[host.url] is None and host.url not in self.unfit:
            for picture in self.waiting:
                elsewhere = any(self._there(url) for url in picture.prompts if url != host.url)
                if host.url not in picture.failed and (host.url in picture.prompts or not elsewhere):
                    self.waiting.remove(picture)
                    return picture
            await self.news.wait()
        return None

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._end(), seconds)

    async def _end(self) -> None:
        """Wait for the end of the batch."""
        while not self.over:
            await self.news.wait()

    def _tell(self) -> None:
        """Wake those who wait for something to change."""
        self.news.set()
        self.news = asyncio.Event()

    async def _withdraw(self, host: Host, pictures: Sequence[Picture]) -> None:
        """Take back what a server has of these, which are done elsewhere or not wanted any more."""
        prompts = [prompt for picture in pictures if (prompt := picture.prompts.pop(host.url, None))]
        if prompts and self.lost[host.url] is None:
            with contextlib.suppress(Lost, asyncio.TimeoutError):  # with the server the work is gone too
                await asyncio.wait_for(host.cancel(prompts), 5)

    def _there(self, url: str) -> bool:
        return self.lost.get(url, 0.0) is None and url not in self.unfit

    def _hoped_for(self, url: str) -> bool:
        since = self.lost[url]
        return url not in self.unfit and (since is None or time.monotonic() - since < self.policy.wait)

    def _lose(self, host: Host, lost: Lost) -> None:
        if self.lost[host.url] is None:
            self.lost[host.url] = time.monotonic()
            self.told.problem(str(lost))
        self._sweep()

    # a photo

    async def _try(self, host: Host, picture: Picture) -> None:
        """Run a photo on a server and fetch what comes out; a run that it has had of it before is gone on with."""
        picture.tries += 1
        prompt = picture.prompts.get(host.url)
        if prompt is None or not await host.known(prompt):
            workflow = copy.deepcopy(self.workflow)
            workflow[self.number]["inputs"]["image"] = await host.upload(picture.path)
            prompt = picture.prompts[host.url] = str(uuid.uuid4())
            self.journal.add_prompt(picture, host.url, prompt)
            await host.queue(workflow, self.number, prompt)
        try:
            entry = await host.follow(prompt, self.policy.poll)
        finally:
            self.shares.pop(prompt, None)
        files, results = runs.outputs(self.workflow, entry)
        names = self._names(picture, files)
        for (_, file), name in zip(files, names, strict=True):
            await host.download(file, self.journal.folder / name)
        del picture.prompts[host.url]
        self._finish(picture, host.url, outputs=names, seconds=runs.seconds(entry), results=results)

    def _names(self, picture: Picture, files: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
        """What a photo's files are called: as it is; several as it is, node and number."""
        stems = [picture.stem]
        if len(files) != 1:
            tails = [re.sub(r"\W", "_", number) for number, _ in files]
            stems = [free(self.stems, f"{picture.stem}.{tail}-{tails[:i].count(tail) + 1}") for i, tail in enumerate(tails)]
        suffixes = [re.search(r"(\.\w+)?$", file["filename"])[0] for _, file in files]  # type: ignore[index]
        return [stem + suffix for stem, suffix in zip(stems, suffixes, strict=True)]

    def _return(self, host: Host, picture: Picture, problem: str) -> None:
        """A photo that a server did not bring to an end waits for another try, if it has one."""
        picture.problem, picture.server = problem, host.url
        self.again += 1
        self.waiting.appendleft(picture)
        self._sweep()

    def _sweep(self) -> None:
        """Give up photos that have had their tries, or that no server is left for; wake the servers for the others."""
        for picture in list(self.waiting):
            if picture.tries >= self.policy.tries:
                problem = picture.problem
            elif not any(self._hoped_for(url) and url not in picture.failed for url in self.lost):
                problem = picture.problem or NOT_TRIED
            else:
                continue
            self.waiting.remove(picture)
            self._finish(picture, picture.server, error=problem)
        self._tell()

    def _finish(
        self,
        picture: Picture,
        server: str | None,
        outputs: Sequence[str] = (),
        seconds: float | None = None,
        results: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        row = Row(picture.name, server, seconds, picture.tries, list(outputs), error, results or {}, picture.file, picture.stem)
        self.journal.add_row(row)
        if error is not None:  # what servers out of reach have of it counts when the batch goes on
            for url, prompt in picture.prompts.items():
                self.journal.add_prompt(picture, url, prompt)
        self.rows[picture.name] = row
        self.told.row(row)
        self._show()
        self._tell()

    def _progress(self, prompt: str, nodes: float) -> None:
        self.shares[prompt] = min(nodes / len(self.workflow), 1.0)
        self._show()

    def _show(self) -> None:
        self.told.progress(len(self.rows) + sum(self.shares.values()))


async def stop(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
