"""A real ComfyUI server in its own process: a tuning run is cancelled over HTTP, queued again and resumed; results are in the
history; memory is freed."""

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from host.server import PACK, Server
from PIL import Image

STEPS = 40


def rows(server: Server) -> list[dict[str, str]]:
    """The curve of the only run."""
    curves = list((server.base / "output").rglob("curve.csv"))
    if not curves:
        return []
    with curves[0].open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def server(comfy: SimpleNamespace, tmp_path: Path) -> Iterator[Server]:
    if not (PACK / "weights" / "mini" / "translator.safetensors").is_file():
        pytest.skip("weights/mini is not there: the bundled models are needed")
    server = Server(tmp_path)
    try:
        server.until(server.up, 300)  # starting takes long on a busy machine
        yield server
    finally:
        server.kill()


def graph() -> dict[str, Any]:
    nodes: dict[str, Any] = json.loads((PACK / "workflows" / "api" / "tune-a-style.json").read_text())
    tuner = next(node for node in nodes.values() if node["class_type"] == "StylerDALLE_RewardTune")
    tuner["inputs"]["steps"] = STEPS
    return nodes


def test_cancel_stops_a_run_and_queue_again_goes_on(server: Server) -> None:
    Image.effect_mandelbrot((320, 280), (-2, -1, 1, 1), 50).convert("RGB").save(server.base / "input" / "photo.jpg")
    first = server("/prompt", {"prompt": graph()})["prompt_id"]
    server.until(lambda: len(rows(server)) >= 3)
    asked = time.monotonic()
    server("/interrupt", {})
    status = server.until(lambda: server.ended(first))
    waited = time.monotonic() - asked
    print(f"cancelled after {waited:.2f} s")
    assert [kind for kind, _ in status["messages"]][-1] == "execution_interrupted", status
    assert waited < 5  # about a second on an idle machine
    before = rows(server)
    assert 3 <= len(before) < STEPS

    second = server("/prompt", {"prompt": graph()})["prompt_id"]
    status = server.until(lambda: server.ended(second), 300)
    assert status["status_str"] == "success", server.log.read_text()
    after = rows(server)
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
    server("/free", {"unload_models": True, "free_memory": True})  # takes effect between two prompts
    assert 2 in [again(seed) for seed in (3, 4)]
