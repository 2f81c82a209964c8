"""Workflows of earlier versions, saved by ComfyUI's page (golden/STATE/NAME.json) and for programs (golden/STATE/api/NAME.json),
load, keep every value, and run. Add files here, but never change one. `before-detail` was saved before Tokenize had `detail` and
Translate had `steady`, `feather` and `candidates`; `0.1.0` with the first version.
"""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from host.formats import Graph, as_api, declared, pictures
from PIL import Image

GOLDEN = Path(__file__).with_name("golden")
SAVED = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/*.json"))
API = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/api/*.json"))


def read(name: str) -> Graph:
    graph: Graph = json.loads((GOLDEN / name).read_text())
    return graph


def with_tiny_models(graph: Graph) -> Graph:
    for node in graph.values():
        known = {
            "bundle": "prompted",
            "style": f"prompted/styles/{'van-gogh' if 'gogh' in str(node['inputs'].get('style')) else 'ukiyo-e'}.safetensors",
            "steps": 2,
        }
        node["inputs"] |= {k: v for k, v in known.items() if k in node["inputs"] and not isinstance(node["inputs"][k], list)}
    return graph


@pytest.fixture
def photo(comfy: SimpleNamespace) -> None:
    (comfy.base / "input").mkdir(exist_ok=True)
    Image.effect_mandelbrot((48, 40), (-2, -1, 1, 1), 50).convert("RGB").save(comfy.base / "input" / "photo.jpg")


@pytest.mark.parametrize("name", SAVED)
def test_what_was_saved_by_the_page_keeps_its_values(comfy: SimpleNamespace, name: str) -> None:
    state, _, file = name.partition("/")
    graph, saved = as_api(comfy, json.loads((GOLDEN / name).read_text())), read(f"{state}/api/{file}")
    assert graph.keys() == saved.keys()
    for number, node in saved.items():
        assert graph[number]["class_type"] == node["class_type"]
        assert node["inputs"].items() <= graph[number]["inputs"].items(), number
        _, optional = declared(comfy, node["class_type"])
        for newer in graph[number]["inputs"].keys() - node["inputs"].keys():
            assert graph[number]["inputs"][newer] == optional[newer][1]["default"], f"{newer} is newer: it has to be optional"


@pytest.mark.parametrize("name", [*API, *SAVED])
def test_a_saved_workflow_is_taken_and_makes_a_picture(comfy: SimpleNamespace, photo: None, name: str) -> None:
    from execution import validate_prompt

    graph = with_tiny_models(read(name) if "/api/" in name else as_api(comfy, json.loads((GOLDEN / name).read_text())))
    taken, error, _, problems = asyncio.run(validate_prompt("id", graph, None))
    assert taken and not problems, (error, problems)
    assert pictures(comfy, graph).shape[1:] == (40, 48, 3)
