"""A real ComfyUI server in its own process: a tuning run is cancelled over HTTP, queued again, and goes on; results are in the
history; memory is given back."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ.get("COMFYUI_DIR", "~/ComfyUI")).expanduser()
STEPS = 40


class Server:
    """ComfyUI on a free port of this machine, its folders below `base`, the pack among its custom nodes."""

    def __init__(self, base: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir()
        (base / "custom_nodes" / "ComfyUI-StylerDALLE").symlink_to(PACK, target_is_directory=True)
        self.base, self.log = base, base / "log.txt"
        options = ["--cpu", "--listen", "127.0.0.1", "--port", self.url.rpartition(":")[2], "--disable-api-nodes"]
        folders = ["--base-directory", str(base), "--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(COMFY / "main.py"), *options, *folders],
                cwd=COMFY,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )

    def __call__(self, path: str, body: Any = None) -> Any:
        """GET, or POST of a body -> what the answer says."""
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def until(self, found: Callable[[], Any], seconds: float = 120) -> Any:
        """Wait until found() is true -> what it is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            if value := found():
                return value
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s for it in vain:\n{self.log.read_text()[-3000:]}")

    def up(self) -> bool:
        try:
            self("/system_stats")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def rows(self) -> list[dict[str, str]]:
        """The curve of the only run."""
        curves = list((self.base / "output").rglob("curve.csv"))
        if not curves:
            return []
        with curves[0].open(newline="") as stream:
            return list(csv.DictReader(stream))

    def done(self, nodes: dict[str, Any]) -> dict[str, Any]:
        """Queue a prompt and wait until it is through -> what its nodes put into the history."""
        asked = self("/prompt", {"prompt": nodes})["prompt_id"]
        status = self.until(lambda: self.ended(asked), 300)
        assert status["status_str"] == "success", self.log.read_text()
        outputs: dict[str, Any] = self(f"/history/{asked}")[asked]["outputs"]
        return outputs

    def ended(self, prompt: str) -> Any:
        """A prompt's status once it is over."""
        return self(f"/history/{prompt}").get(prompt, {}).get("status")


@pytest.fixture
def server(comfy: SimpleNamespace, tmp_path: Path) -> Iterator[Server]:
    if not (PACK / "weights" / "mini" / "translator.safetensors").is_file():
        pytest.skip("weights/mini is not there: the bundled models are needed")
    server = Server(tmp_path)
    try:
        server.until(server.up, 300)  # a busy machine is slow to start it
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def graph() -> dict[str, Any]:
    nodes: dict[str, Any] = json.loads((PACK / "workflows" / "api" / "tune-a-style.json").read_text())
    tuner = next(node for node in nodes.values() if node["class_type"] == "StylerDALLE_RewardTune")
    tuner["inputs"]["steps"] = STEPS
    return nodes


def test_cancel_stops_a_run_and_queue_again_goes_on(server: Server) -> None:
    Image.effect_mandelbrot((320, 280), (-2, -1, 1, 1), 50).convert("RGB").save(server.base / "input" / "photo.jpg")
    first = server("/prompt", {"prompt": graph()})["prompt_id"]
    server.until(lambda: len(server.rows()) >= 3)
    asked = time.monotonic()
    server("/interrupt", {})
    status = server.until(lambda: server.ended(first))
    waited = time.monotonic() - asked
    print(f"cancelled after {waited:.2f} s")
    assert [kind for kind, _ in status["messages"]][-1] == "execution_interrupted", status
    assert waited < 5  # about a second, where nothing else runs
    before = server.rows()
    assert 3 <= len(before) < STEPS

    second = server("/prompt", {"prompt": graph()})["prompt_id"]
    status = server.until(lambda: server.ended(second), 300)
    assert status["status_str"] == "success", server.log.read_text()
    after = server.rows()
    assert after[: len(before)] == before and [int(row["step"]) for row in after] == list(range(1, STEPS + 1))
    assert len(list((server.base / "output").glob("StylerDALLE_*.png"))) == 1
    assert (server.base / "models" / "stylerdalle" / "styles" / "flat-vector.safetensors").is_file()


def test_results_are_in_the_history_and_models_are_loaded_once_until_memory_is_freed(server: Server) -> None:
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(server.base / "input" / "photo.jpg")
    nodes = json.loads((PACK / "workflows" / "api" / "stylize.json").read_text())
    number, translate = next((n, node) for n, node in nodes.items() if node["class_type"] == "StylerDALLE_Translate")

    def loaded() -> int:
        return server.log.read_text().count("mini/tokenizer.safetensors: ")

    def again(seed: int) -> int:
        translate["inputs"]["seed"] = seed
        found = server.done(nodes)[number]
        assert (found["style"], found["near"], found["seed"]) == (["van-gogh"], [None], [seed])
        return loaded()

    assert [again(seed) for seed in (0, 1, 2)] == [1, 1, 1]
    server("/free", {"unload_models": True, "free_memory": True})  # heard between two prompts
    assert 2 in [again(seed) for seed in (3, 4)]
