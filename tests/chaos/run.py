"""make chaos: jobs that are killed at random moments, and jobs of which every single write fails in turn.

    python tests/chaos/run.py [--kills 200] [--faults 1] [--places] [--jobs tune fetch ...] [--seed 0]

After each kill (SIGKILL) every file with a name of its own is whole, and the work has not gone back. A job that is killed again
and again ends like one that never was: equal weights, tokens and pictures. After a failing write the job ends with one sentence,
every file is whole, and the same command ends like an unbroken one.
"""

import argparse
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import loopback  # noqa: E402
from chaos import jobs  # noqa: E402
from fake_comfyui import Fake  # noqa: E402

SHORT = {"tune": {"steps": 4}, "pretrain": {"steps": 4}}  # where writes fail: four steps have all kinds of writes
KILLED = ("tune", "pretrain", "fetch", "queue", "save")
PATIENCE = 180  # seconds for one job on a busy machine: one that takes longer hangs, and is killed


class Victims:
    """The process that forks the victims (victims.py)."""

    def __init__(self, log: Path):
        self.log = log
        paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, str(TESTS / "chaos" / "victims.py")]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def __call__(
        self, job: str, args: dict[str, Any], kill_after: float | None = None, fault: tuple[int, int] | None = None
    ) -> int:
        """Run a job to its end, or kill it after so many seconds -> its exit code, -9 if it was killed before its end."""
        self.log.write_text("")
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"job": job, "args": args, "log": str(self.log), "fault": fault}) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        end = threading.Timer(PATIENCE if kill_after is None else kill_after, end_process, (pid,))
        end.start()
        try:
            return int(self.process.stdout.readline())
        finally:
            end.cancel()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def end_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class World:
    """What all jobs share: inputs, the servers they talk to, and the results of unbroken runs."""

    def __init__(self, folder: Path):
        self.folder, self.shared, self.log = folder, folder / "shared", folder / "log.txt"
        self.shared.mkdir()
        jobs.write_shared(self.shared)
        self.victims = Victims(self.log)
        self.files = [loopback.Server((self.shared / f"{name}.pkl").read_bytes()) for name in ("encoder", "decoder")]
        for server in self.files:
            server.acts = [slowly]
        self.comfyui = Fake(seconds=0.02)
        self.number = 0

    def close(self) -> None:
        self.victims.close()
        self.comfyui.stop()
        for server in self.files:
            server.close()

    def args(self, job: str) -> dict[str, Any]:
        """The arguments of a job in a new folder."""
        self.number += 1
        place = self.folder / f"{job}-{self.number}"
        place.mkdir()
        args: dict[str, Any] = {"folder": str(place), "shared": str(self.shared)}
        if job == "fetch":
            names = ("encoder", "decoder")
            args["urls"] = [f"{server.url}/{name}.pkl" for server, name in zip(self.files, names, strict=True)]
        if job == "queue":
            args["urls"] = [self.comfyui.url]
        return args

    def unbroken(self, job: str, **more: Any) -> tuple[Any, float, int, list[int]]:
        """(result, seconds, number of writes, indices of those of a new kind) of a job that nothing disturbs."""
        args, began = self.args(job) | more, time.monotonic()
        code = self.victims(job, args)
        assert code == 0, self.log.read_text()
        seconds = time.monotonic() - began
        writes, places = json.loads(self.log.read_text().rpartition("writes: ")[2])
        return self.result(job, args), seconds, writes, places

    def result(self, job: str, args: dict[str, Any]) -> Any:
        return jobs.result(job, Path(args["folder"]), self.shared)


def slowly(handler: loopback.Handler, data: bytes) -> None:
    """Sends the file in small parts, so that a kill may come between them."""
    status, start, headers = loopback.part_asked(handler, data)
    handler.send(status, b"", **{**headers, "Content_Length": len(data) - start})
    with contextlib.suppress(OSError):  # the victim was killed
        for place in range(start, len(data), 1 << 16):
            handler.wfile.write(data[place : place + (1 << 16)])
            handler.wfile.flush()
            time.sleep(0.002)


def kill(world: World, job: str, kills: int, chance: random.Random) -> str:
    """Kill a job so often, at random moments -> a line of the report. Raises AssertionError where something is broken or lost."""
    want, seconds, *_ = world.unbroken(job)
    done, ends, args, before = 0, 0, world.args(job), 0
    while done < kills or ends == 0:
        limit = chance.uniform(0, 1.1 * seconds) if done < kills else None
        code = world.victims(job, args, limit)
        folder = Path(args["folder"])
        now = jobs.whole(folder)
        assert now >= before, f"{job}: {before} were done, now {now}"
        assert code in (0, -signal.SIGKILL), f"{job} ended with {code}: {world.log.read_text()}"
        before, done = now, done + (code != 0)
        if code == 0:
            assert world.result(job, args) == want, f"{job}: not the result of an unbroken run"
            ends += 1
            shutil.rmtree(folder)
            args, before = world.args(job), 0
    return f"{job:9} {done:4} kills, {ends:3} resumed runs equal to an unbroken one"


def fail(world: World, job: str, every: int, chance: random.Random, places: bool = False) -> str:
    """Fail each write of a job in turn, or each `every`-th -> a line of the report. Raises as `kill`.

    Args:
        places: fail also whatever is not a second or later write to an open file, each of them.
    """
    more = SHORT.get(job, {})
    want, _, writes, new = world.unbroken(job, **more)
    refused = 0
    indices = sorted({*range(chance.randrange(every), writes, every), *(new if places else ())})
    for index in indices:
        args = world.args(job) | more
        code = world.victims(job, args, fault=(index, chance.choice((errno.ENOSPC, errno.EIO))))
        said = world.log.read_text().rpartition("\nwrites: ")[0].strip()
        assert code in (0, 2), f"{job}, write {index}: exit code {code}: {said}"
        assert "Traceback" not in said, f"{job}, write {index}: {said}"
        refused += code == 2
        jobs.whole(Path(args["folder"]))
        if code:  # otherwise it is done: the write was not needed
            again = world.victims(job, args)
            assert again == 0, f"{job}, after write {index}: {world.log.read_text()}"
        assert world.result(job, args) == want, f"{job}, after write {index}: not the result of an unbroken run"
        shutil.rmtree(args["folder"])
    return f"{job:9} {len(indices):4} failing writes of {writes}, {refused} told in one sentence, all ended well the second time"


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            made.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill jobs at random moments, and fail each of their writes in turn.")
    parser.add_argument("--kills", type=int, default=200, help="in all, shared among the jobs (default %(default)s)")
    parser.add_argument("--faults", type=int, default=1, metavar="N", help="fail each N-th write; 0: none (default %(default)s)")
    parser.add_argument(
        "--places", action="store_true", help="with --faults N, fail also each opening, first write, sync and move"
    )
    parser.add_argument("--jobs", nargs="+", choices=jobs.JOBS, default=list(jobs.JOBS), help="only these")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    args = parser.parse_args()
    chance, failed, began = random.Random(args.seed), 0, time.monotonic()
    killed = [job for job in KILLED if job in args.jobs]
    with world() as here:
        rounds = [(kill, job, -(-args.kills // len(killed))) for job in killed if args.kills]
        rounds += [(partial(fail, places=args.places), job, args.faults) for job in args.jobs if args.faults]
        for what, job, number in rounds:
            try:
                print(what(here, job, number, chance), f"({time.monotonic() - began:.0f} s)", flush=True)
            except (AssertionError, ValueError, OSError) as error:
                failed += 1
                print(f"{job:9} FAILED: {error}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
