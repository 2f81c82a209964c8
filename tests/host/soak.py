"""make soak: a real ComfyUI under load: many prompts of mixed sizes and styles, cancelled and bad ones, from several clients.

    comfyvenv/bin/python tests/host/soak.py [--prompts 1000] [--clients 8] [--minutes 25] [--bundle mini]

Midway the host is killed and started again, and the clients send again what it had not done. Each prompt ends as it should: a
picture of the right size, a cancel, or one sentence. Between the end of a warm-up and the end of the load, the host's memory
grows by 3 % at most, and its open handles and threads not at all (Linux: they are read from /proc). COMFYUI_DIR and
COMFYUI_PYTHON are those of server.py.
"""

import argparse
import contextlib
import http.client
import json
import math
import random
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from host.server import PACK, Server
from PIL import Image

GROWTH = 0.03  # of the memory
SPARE = 8  # handles and threads that may come and go: sockets that the system has not yet closed, a pool's last thread
GONE = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)
SIZES = ((128, 128), (384, 256), (256, 384), (200, 133), (129, 351), (320, 320), (160, 384), (384, 384))
STYLES = (
    "ukiyo-e",
    "van-gogh",
    "ukiyo-e:0.5, van-gogh:0.7",
    "a Van Gogh style oil painting",
    "a mosaic of small tiles",
    "van-gogh:0.4",
)
# what is wrong, and the words of which the answer has one
BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"strength": math.nan}, "strength|Value|nan"),
    ({"strength": 5.0}, "bigger than max"),
    ({"prompt": ""}, "empty"),
    ({"prompt": "ukiyo-e:7"}, "out of range"),
    ({"prompt": "x" * 3000}, "characters"),
    ({"prompt": "a.safetensors"}, "file name"),
    ({"candidates": 3}, "raise the temperature"),
    ({"tokens": ["1", 0]}, "mismatch"),
    ({"seed": -1}, "smaller than min"),
    ({"mask": "white"}, "MASK"),
)


@dataclass
class Soak:
    """The load on one host that is restarted. `server` is replaced by the restart."""

    base: Path
    bundle: str
    seed: int = 0
    ended: Counter[str] = field(default_factory=Counter)  # prompts by what became of them
    wrong: list[str] = field(default_factory=list)  # what did not end as it should
    again: int = 0  # prompts that were sent twice because of the restart
    stop: float = math.inf  # time.monotonic() after which no prompt is sent

    def __post_init__(self) -> None:
        (self.base / "input").mkdir(parents=True, exist_ok=True)
        self.sizes = {}
        for k, size in enumerate(SIZES):
            mode = ("RGB", "RGB", "L", "RGBA")[k % 4]
            name = f"{k}-{size[0]}x{size[1]}.png"
            Image.effect_mandelbrot(size, (-2 + k / 9, -1, 1, 1), 60).convert(mode).save(self.base / "input" / name)
            self.sizes[name] = size
        self.graph = json.loads((PACK / "workflows" / "api" / "stylize.json").read_text())
        self.node = {node["class_type"]: node["inputs"] for node in self.graph.values()}
        self.lock = threading.Lock()
        self.start()

    def start(self) -> None:
        self.server = Server(self.base)
        self.server.until(self.server.up, 900)

    def load(self, numbers: Iterable[int], clients: int, during: Callable[[], None] = lambda: None) -> None:
        """Send these prompts from so many clients at once, and wait for them. `during` is called in the middle of it."""
        with ThreadPoolExecutor(clients) as pool:
            sent = [pool.submit(self.one, number) for number in numbers]
            during()
            for future in sent:
                future.result()

    def restart(self) -> None:
        """Kill the host while it works, and start it again."""
        self.server.until(lambda: self.server("/queue")["queue_running"], 300)
        self.server.kill()
        self.start()

    def one(self, number: int) -> None:
        """Send one prompt, again if the host is restarted meanwhile, and judge its end."""
        if time.monotonic() > self.stop:
            return
        chance = random.Random(f"{self.seed}-{number}")
        kind = chance.choices(("good", "cancelled", "bad"), (70, 15, 15))[0]
        graph, size, want = self.draw(chance, kind)
        while True:
            server = self.server
            try:
                end, said = self.follow(server, graph, kind, chance)
                break
            except GONE as error:
                with self.lock:
                    self.again += 1
                if server is self.server and server.process.poll() is None and not isinstance(error, ConnectionError):
                    continue  # only slow
                deadline = time.monotonic() + 900
                while (self.server is server or not self.server.up()) and time.monotonic() < deadline:
                    time.sleep(0.2)
        problem = self.judge(number, kind, end, said, size, want)
        with self.lock:
            self.ended[f"{kind}: {end}"] += 1
            if problem:
                self.wrong.append(f"prompt {number} ({kind}): {problem}")

    def draw(self, chance: random.Random, kind: str) -> tuple[dict[str, Any], tuple[int, int], str]:
        """(workflow, size of its picture, what the answer to a bad one must say)."""
        graph = json.loads(json.dumps(self.graph))
        inputs = {node["class_type"]: node["inputs"] for node in graph.values()}
        name = chance.choice(list(self.sizes))
        inputs["LoadImage"]["image"] = name
        inputs["StylerDALLE_Load"]["bundle"] = self.bundle
        translate, want = inputs["StylerDALLE_Translate"], ""
        translate |= {
            "prompt": chance.choice(STYLES),
            "seed": chance.randrange(1 << 40),
            "strength": chance.choice((1, 0.6, 1.7)),
        }
        translate |= {"temperature": chance.choice((0, 0, 0.7)), "softness": chance.choice((0.5, 0))}
        if kind == "bad":
            change, want = chance.choice(BAD)
            translate |= {"temperature": 0.0, **change}
        return graph, self.sizes[name], want

    def follow(self, server: Server, graph: dict[str, Any], kind: str, chance: random.Random) -> tuple[str, Any]:
        """Send a workflow and wait for its end -> (how it ended, the answer or the history's entry)."""
        try:
            prompt = server("/prompt", {"prompt": graph})["prompt_id"]
        except urllib.error.HTTPError as error:
            return "refused", error.read().decode()
        cancel_at = time.monotonic() + chance.uniform(0, 1.5) if kind == "cancelled" else math.inf
        cancelled = math.inf
        while True:
            if time.monotonic() > cancel_at:
                server("/queue", {"delete": [prompt]})
                server("/interrupt", {"prompt_id": prompt})
                cancel_at, cancelled = math.inf, time.monotonic()
            entry = server(f"/history/{prompt}").get(prompt)
            if entry:
                return entry["status"]["status_str"], entry
            if time.monotonic() > cancelled + 2:
                queue = server("/queue")
                if all(item[1] != prompt for some in queue.values() for item in some):
                    return ("gone", None) if not server(f"/history/{prompt}") else self.follow_end(server, prompt)
            time.sleep(0.05)

    def follow_end(self, server: Server, prompt: str) -> tuple[str, Any]:
        entry = server(f"/history/{prompt}")[prompt]
        return entry["status"]["status_str"], entry

    def judge(self, number: int, kind: str, end: str, said: Any, size: tuple[int, int], want: str) -> str:
        """What is wrong with the end of a prompt, or ""."""
        if end == "success":
            if kind == "bad":
                return "it was done"
            files = [image for output in said["outputs"].values() for image in output.get("images", [])]
            paths = [self.base / file["type"] / file["subfolder"] / file["filename"] for file in files]
            found = []
            for path in paths:
                with Image.open(path) as image:
                    image.load()
                    found.append(image.size)
            return "" if size in found else f"pictures of {found}, not {size}"
        messages = said["status"]["messages"] if isinstance(said, dict) else []
        if kind == "cancelled":
            interrupted = any(name == "execution_interrupted" for name, _ in messages)
            return "" if end == "gone" or interrupted else f"{end}: {messages[-1:]}"
        errors = [facts for name, facts in messages if name == "execution_error"]
        text = said if end == "refused" else errors[-1]["exception_message"].strip() if errors else str(messages)
        if kind == "good":
            return f"{end}: {text[:300]}"
        if not any(word in text for word in want.split("|")):
            return f"it says {text[:300]!r}, not {want!r}"
        return "" if end == "refused" or "\n" not in text else f"not one sentence: {text[:300]!r}"

    def idle(self) -> dict[str, int]:
        """Memory (MB), handles and threads of the host when it has nothing to do."""
        self.server.until(lambda: not any(self.server("/queue").values()), 300)
        time.sleep(2)
        with contextlib.suppress(OSError):
            return {
                "memory": self.server.status("VmRSS") // 1024,
                "handles": self.server.handles(),
                "threads": self.server.status("Threads"),
            }
        return {}


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What grew more than it may."""
    found = []
    for name, value in before.items():
        most = value * (1 + GROWTH) if name == "memory" else value + SPARE
        if after[name] > most:
            found.append(f"{name} grew from {value} to {after[name]}")
    return found


def run(soak: Soak, prompts: int, clients: int, tell: Callable[[str], None] = print) -> list[str]:
    """The whole load: warm-up, half of it, the restart, warm-up, the other half -> what was wrong."""
    warm, half = max(clients, prompts // 8), prompts // 2
    problems = []

    def lived(first: int, last: int) -> None:
        soak.load(range(first, min(last, first + warm)), clients)
        before = soak.idle()
        soak.load(range(min(last, first + warm), last), clients)
        after = soak.idle()
        tell(f"prompts {first + warm} to {last}: {before} -> {after}")
        problems.extend(grown(before, after))

    lived(0, half)
    soak.load(range(half, half + 2 * clients), clients, during=soak.restart)
    lived(half + 2 * clients, prompts)
    tell(f"{soak.ended.total()} prompts, {soak.again} sent again after the restart: {dict(sorted(soak.ended.items()))}")
    return [*soak.wrong, *problems]


def main() -> int:
    parser = argparse.ArgumentParser(description="A real ComfyUI under load, killed and restarted midway.")
    parser.add_argument("--prompts", type=int, default=1000, help="in all (default %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="that send at once (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=0, help="send no more prompts after so long; 0: no limit (default)")
    parser.add_argument("--bundle", default="mini", help="bundle that stylises; `tiny` has random models (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts (default %(default)s)")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        base = Path(folder)
        if args.bundle == "tiny":
            from tiny import write_bundle, write_hypernetwork

            write_hypernetwork(write_bundle(base / "models" / "stylerdalle" / "tiny"))
        soak = Soak(base, args.bundle, args.seed)
        soak.stop = began + 60 * args.minutes if args.minutes else math.inf
        try:
            problems = run(soak, args.prompts, args.clients, lambda text: print(text, flush=True))
        finally:
            soak.server.kill()
    print(f"{time.monotonic() - began:.0f} s, {len(problems)} problems")
    for problem in problems:
        print(f"  {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
