"""The shipped workflows: workflows/api/NAME.json for programs, and the same graph for people in workflows/NAME.json."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

PACK = Path(__file__).parents[2]
WORKFLOWS = PACK / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
Graph = dict[str, dict[str, Any]]


def read(name: str) -> Graph:
    graph: Graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    return graph


def declared(comfy: SimpleNamespace, node_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(required, optional) inputs of a node, each (type, options)."""
    types = comfy.nodes.NODE_CLASS_MAPPINGS[node_type].INPUT_TYPES()
    return types["required"], types.get("optional", {})


def is_widget(spec: Any) -> bool:
    return isinstance(spec[0], list) or spec[0] in ("COMBO", "STRING", "INT", "FLOAT", "BOOLEAN")


def widget_names(comfy: SimpleNamespace, node_type: str) -> list[str]:
    """What the values of `widgets_values` are of; a seed and an upload bring an extra widget, which programs do not see."""
    required, optional = declared(comfy, node_type)
    names = []
    for name, spec in {**required, **optional}.items():
        if is_widget(spec):
            options = spec[1] if len(spec) > 1 else {}
            extra = options.get("control_after_generate") or options.get("image_upload")
            names += [name, "(extra)"] if extra else [name]
    return names


def as_api(comfy: SimpleNamespace, ui: dict[str, Any]) -> Graph:
    """The graph that ComfyUI's page sends for a UI-format file."""
    sources = {link[0]: [str(link[1]), link[2]] for link in ui["links"]}
    graph = {}
    for node in ui["nodes"]:
        values = dict(zip(widget_names(comfy, node["type"]), node.get("widgets_values", []), strict=True))
        values.pop("(extra)", None)
        links = {i["name"]: sources[i["link"]] for i in node["inputs"] if i.get("link") is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": {**values, **links}}
    return graph


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
                assert source.RETURN_TYPES[value[1]] == {**required, **optional}[key][0], (number, key)


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_the_same_graph(comfy: SimpleNamespace, name: str) -> None:
    ui = json.loads((WORKFLOWS / f"{name}.json").read_text())
    graph = as_api(comfy, ui)
    assert graph == {number: {k: node[k] for k in ("class_type", "inputs")} for number, node in read(name).items()}
    for link, source, slot, target, place, kind in ui["links"]:
        nodes = {node["id"]: node for node in ui["nodes"]}
        assert link in nodes[source]["outputs"][slot]["links"] and nodes[source]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][place]["link"] == link and nodes[target]["inputs"][place]["type"] == kind
    assert ui["version"] == 0.4
    assert ui["last_node_id"] == max(n["id"] for n in ui["nodes"]) and ui["last_link_id"] == max(x[0] for x in ui["links"])


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_makes_a_picture(comfy: SimpleNamespace, name: str) -> None:
    if not (PACK / "weights" / "mini" / "translator.safetensors").is_file():
        pytest.skip("weights/mini is not there: the bundled models are needed")
    from PIL import Image

    (comfy.base / "input").mkdir(exist_ok=True)
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(comfy.base / "input" / "photo.jpg")
    graph, mappings = read(name), comfy.nodes.NODE_CLASS_MAPPINGS
    for node in graph.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2

    def output(number: str, slot: int) -> Any:
        node = mappings[graph[number]["class_type"]]
        values = {k: output(*v) if isinstance(v, list) else v for k, v in graph[number]["inputs"].items()}
        with torch.inference_mode():
            if hasattr(node, "GET_SCHEMA"):
                return node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**values).args[slot]
            return getattr(node(), node.FUNCTION)(**values)[slot]

    save = next(node for node in graph.values() if node["class_type"] == "SaveImage")
    assert output(*save["inputs"]["images"]).shape == (1, 80, 96, 3)
