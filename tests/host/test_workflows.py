"""The shipped workflows: workflows/api/NAME.json for programs, and the same graph in workflows/NAME.json for people."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from host.formats import Graph, as_api, declared, pictures
from PIL import Image

PACK = Path(__file__).parents[2]
WORKFLOWS = PACK / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
FRAMES = {"video-frames": 4}


def read(name: str) -> Graph:
    graph: Graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    return graph


def test_every_template_has_both_formats() -> None:
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nodes_and_inputs_exist_and_links_fit(comfy: SimpleNamespace, name: str) -> None:
    graph = read(name)
    mappings = comfy.nodes.NODE_CLASS_MAPPINGS
    for number, node in graph.items():
        required, optional = declared(comfy, node["class_type"])
        assert set(required) <= set(node["inputs"]) <= {*required, *optional}, number
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                source = mappings[graph[value[0]]["class_type"]]
                assert {**required, **optional}[key][0] in (source.RETURN_TYPES[value[1]], "*"), (number, key)


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_the_same_graph(comfy: SimpleNamespace, name: str) -> None:
    ui = json.loads((WORKFLOWS / f"{name}.json").read_text())
    graph = as_api(comfy, ui)
    assert graph == {number: {k: node[k] for k in ("class_type", "inputs")} for number, node in read(name).items()}
    for node in ui["nodes"]:
        if node["type"] != "Note" and "title" in node:  # a title is saved only if it differs from the node's name
            assert node["title"] == read(name)[str(node["id"])]["_meta"]["title"]
    nodes = {node["id"]: node for node in ui["nodes"]}
    for link, source, slot, target, place, kind in ui["links"]:
        output, given = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert link in output["links"] and given["link"] == link
        assert len({kind, output["type"], given["type"]} - {"*"}) == 1
    assert ui["version"] == 0.4
    assert ui["last_node_id"] == max(n["id"] for n in ui["nodes"]) and ui["last_link_id"] >= max(x[0] for x in ui["links"])


@pytest.mark.parametrize("name", NAMES)
def test_one_note_says_what_to_change(name: str) -> None:
    notes = [n for n in json.loads((WORKFLOWS / f"{name}.json").read_text())["nodes"] if n["type"] == "Note"]
    assert [note["title"] for note in notes] == ["What to change"]
    assert len(notes[0]["widgets_values"][0]) < 600


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_makes_a_picture(comfy: SimpleNamespace, name: str) -> None:
    if not (PACK / "weights" / "mini" / "translator.safetensors").is_file():
        pytest.skip("weights/mini is not there: the bundled models are needed")
    (comfy.base / "input").mkdir(exist_ok=True)
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(comfy.base / "input" / "photo.jpg")
    graph = read(name)
    for node in graph.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
    assert pictures(comfy, graph).shape == (FRAMES.get(name, 1), 80, 96, 3)
