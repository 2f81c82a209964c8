"""Workflows over the API of a real ComfyUI: the pack's own, with inputs, links and classes of its nodes changed to anything.

The server refuses the workflow, or runs it to pictures, or the node fails with one sentence. Nothing stops the server.
"""

import contextlib
import copy
import json
import math
import shutil
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz.harness import JSON, LONGEST, PACK
from fuzz.texts import TEXT
from host.conftest import write_models
from host.server import COMFY, PYTHON, Server
from hypothesis import strategies as st
from PIL import Image

VALUES = JSON | TEXT.map(lambda text: text.encode(errors="replace").decode()) | st.floats(-3, 70) | st.integers(-2, 70)
SMALL = {
    "steps": (1, 2, 0, -1, None, "x"),
    "candidates": (1, 2, 3, 0, -1, 65, math.nan, "x"),
    "minutes": (0, 0.001, -1, math.nan),
}
WAIT = 300  # seconds that a workflow may take on a busy machine; what it takes of the processor is measured


def missing() -> str:
    """Why there is no ComfyUI here, or ""."""
    if not (COMFY / "main.py").is_file():
        return f"there is no ComfyUI in {COMFY}: set COMFYUI_DIR to a checkout"
    if not shutil.which(PYTHON):
        return f"there is no Python at {PYTHON}: set COMFYUI_PYTHON to one that can run ComfyUI"
    probe = subprocess.run([PYTHON, "-c", "import torchsde, aiohttp, torch"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else f"{PYTHON} cannot run ComfyUI: set COMFYUI_PYTHON to one that can"


@contextlib.contextmanager
def workflows() -> Iterator["Workflows"]:
    """The target, while its server runs."""
    if why := missing():
        raise RuntimeError(why)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        base = Path(folder, "base")
        (base / "models" / "stylerdalle").mkdir(parents=True)
        write_models(base / "models" / "stylerdalle", Path(folder, "extra"))
        server = Server(base)
        try:
            photo = Image.effect_mandelbrot((56, 48), (-2, -1, 1, 1), 50).convert("RGB")
            photo.save(base / "input" / "photo.jpg")
            server.until(server.up, 600)
            yield Workflows(server)
        finally:
            server.kill()


class Workflows:
    """Draws a workflow, sends it and judges what comes of it."""

    def __init__(self, server: Server):
        self.server, self.graphs = server, {}
        for path in sorted((PACK / "workflows" / "api").glob("*.json")):
            if path.stem in ("video-frames",):  # it needs a video
                continue
            graph = json.loads(path.read_text())
            for node in graph.values():
                inputs = node["inputs"]
                inputs |= {"bundle": "prompted"} if "bundle" in inputs else {}
                inputs |= {"steps": 1} if "steps" in inputs else {}
                inputs |= {"candidates": 2} if inputs.get("candidates", 1) > 1 else {}
            self.graphs[path.stem] = graph

    def peak(self) -> float:
        """MB that the server has used at most."""
        return self.server.status("VmHWM") / 1024

    def __call__(self, draw: Callable[..., Any]) -> str:
        # the tuning takes a hundred times as long as the others
        names = [name for name in self.graphs for _ in range(1 if name == "tune-a-style" else 6)]
        graph = copy.deepcopy(self.graphs[draw(st.sampled_from(names))])
        for _ in range(draw(st.integers(1, 2))):
            change(graph, draw)
        told = self.server.log.stat().st_size
        try:
            prompt = self.server("/prompt", {"prompt": graph})["prompt_id"]
        except urllib.error.HTTPError as error:
            assert error.code in (400, 500), error
            self.check_log(told)
            return "refused"
        status = self.ended(prompt)
        self.check_log(told)
        if status["status_str"] == "success":
            return "right"
        kind, facts = status["messages"][-1]
        assert kind == "execution_error", status
        text, ours = facts["exception_message"].strip(), facts["node_type"].startswith("StylerDALLE_")
        if ours:
            assert facts["exception_type"] == "ValueError", (facts["exception_type"], text, facts["traceback"][-1:])
            assert 10 < len(text) < LONGEST and "\n" not in text, text
            assert any(place in facts["traceback"][-1] for place in ("/stylerdalle/", "/nodes/")), facts["traceback"][-1]
        return "refused"

    def ended(self, prompt: str) -> dict[str, Any]:
        """The status of a prompt, which ends in time."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            assert self.server.process.poll() is None, "the server has ended"
            if status := self.server.ended(prompt):
                return status
            time.sleep(0.05)
        self.server("/interrupt", {})
        raise AssertionError(f"not done after {WAIT} s")

    def check_log(self, since: int) -> None:
        """Raises AssertionError where the server tells of an error in the pack that is not a node's sentence."""
        with self.server.log.open("rb") as stream:
            stream.seek(since)
            text = stream.read().decode(errors="replace")
        for part in text.split("Traceback (most recent call last)")[1:]:
            own = [line for line in part.splitlines() if "File" in line and "ComfyUI-StylerDALLE" in line]
            assert not own or "\nValueError: " in part, part[-1500:]


def change(graph: dict[str, Any], draw: Callable[..., Any]) -> None:
    """Change one node of the pack, in place."""
    ours = [number for number, node in graph.items() if str(node.get("class_type", "")).startswith("StylerDALLE_")]
    if not ours:
        return
    node = graph[draw(st.sampled_from(ours))]
    inputs = node["inputs"]
    if not inputs:
        return
    key = draw(st.sampled_from(list(inputs)))
    match draw(st.integers(0, 9)):
        case 0:
            inputs.pop(key)
        case 1:
            inputs[key] = [draw(st.sampled_from(list(graph))), draw(st.integers(0, 4))]
        case 2:
            inputs[draw(st.sampled_from(("style", "mask", "regions", "exemplars", "start", "negative", "x")))] = draw(
                VALUES | st.sampled_from([["1", 0], ["2", 0], ["2", 1]])
            )
        case _:
            inputs[key] = draw(st.sampled_from(SMALL[key]) if key in SMALL else VALUES)
