"""The two formats of a workflow, API for programs and UI for ComfyUI's page, and the conversion of UI to API."""

from types import SimpleNamespace
from typing import Any

import torch

Graph = dict[str, dict[str, Any]]
WIDGETS = ("COMBO", "STRING", "INT", "FLOAT", "BOOLEAN", "COMFY_DYNAMICCOMBO_V3")  # types of inputs with a widget


def declared(comfy: SimpleNamespace, node_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(required, optional) inputs of a node, each (type, options)."""
    types = comfy.nodes.NODE_CLASS_MAPPINGS[node_type].INPUT_TYPES()
    return types["required"], types.get("optional", {})


def widgets(comfy: SimpleNamespace, node_type: str) -> dict[str, Any]:
    """The inputs that `widgets_values` belong to, with defaults. Seeds and uploads have one more widget, which is no input."""
    required, optional = declared(comfy, node_type)
    found = {}
    for name, spec in {**required, **optional}.items():
        options = spec[1] if len(spec) > 1 else {}
        if isinstance(spec[0], list) or spec[0] in WIDGETS:
            found[name] = options.get("default")
            if options.get("control_after_generate") or options.get("image_upload"):
                found[f"{name} (extra)"] = None
    return found


def as_api(comfy: SimpleNamespace, ui: dict[str, Any]) -> Graph:
    """A UI-format file -> the API-format graph that the page sends: without notes; widgets newer than the file have defaults."""
    sources = {link[0]: [str(link[1]), link[2]] for link in ui["links"]}
    graph = {}
    for node in ui["nodes"]:
        if node["type"] == "Note":
            continue
        names, saved = widgets(comfy, node["type"]), node.get("widgets_values", [])
        assert len(saved) <= len(names), node
        values = {**names, **dict(zip(names, saved, strict=False))}
        values = {name: value for name, value in values.items() if not name.endswith(" (extra)")}
        links = {i["name"]: sources[i["link"]] for i in node["inputs"] if i.get("link") is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": {**values, **links}}
    return graph


def without_newer(graph: Graph, known: Graph) -> Graph:
    """The graph without the inputs of ComfyUI's own nodes that `known` lacks: a newer ComfyUI has more of them, with defaults."""
    return {
        number: node
        if node["class_type"].startswith("StylerDALLE_")
        else {**node, "inputs": {key: value for key, value in node["inputs"].items() if key in known[number]["inputs"]}}
        for number, node in graph.items()
    }


def pictures(comfy: SimpleNamespace, graph: Graph) -> torch.Tensor:
    """Run the nodes that the saved pictures depend on -> these pictures, (B, H, W, C)."""

    def output(number: str, slot: int) -> Any:
        node = comfy.nodes.NODE_CLASS_MAPPINGS[graph[number]["class_type"]]
        values = {k: output(*v) if isinstance(v, list) else v for k, v in graph[number]["inputs"].items()}
        with torch.inference_mode():
            if hasattr(node, "GET_SCHEMA"):
                return node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**values).args[slot]
            return getattr(node(), node.FUNCTION)(**values)[slot]

    last = next(node for node in graph.values() if node["class_type"] in ("SaveImage", "CreateVideo"))
    made: torch.Tensor = output(*last["inputs"]["images"])
    return made
