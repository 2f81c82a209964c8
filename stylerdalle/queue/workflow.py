"""Workflows in ComfyUI's API format, {node id: {"class_type", "inputs", "_meta": {"title"}}}: read, find nodes, set inputs."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..settings import shortened

Workflow = dict[str, dict[str, Any]]


def read_workflow(path: str | Path) -> Workflow:
    """An API-format workflow file.

    Raises:
        ValueError: not there, not JSON, or in the format of ComfyUI's editor (the sentence says which file to give).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the workflow {path} does not exist: check the path")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:  # JSON's and UTF-8's
        raise ValueError(f"{path} is not JSON ({error}): give a workflow in ComfyUI's API format") from error
    if isinstance(found, dict) and isinstance(found.get("nodes"), list):
        twin = path.parent / "api" / re.sub(r"^\d+-", "", path.name)  # 06-stylize.json: the number orders the templates
        do = f"give {twin}" if twin.is_file() else "in ComfyUI choose Workflow > Export (API), and give that file"
        raise ValueError(f"{path} is a workflow for ComfyUI's editor, which its HTTP API does not accept: {do}")
    nodes = found.values() if isinstance(found, dict) else ()
    if not nodes or not all(map(_is_node, nodes)):
        raise ValueError(f"{path} is not a workflow in ComfyUI's API format: in ComfyUI choose Workflow > Export (API)")
    return dict(found)


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def title(node: dict[str, Any]) -> str:
    meta = node.get("_meta")
    return str((meta.get("title") if isinstance(meta, dict) else "") or node["class_type"])


def node_name(workflow: Workflow, node_id: str) -> str:
    """A node's name in messages: `node 4 (Translate)`."""
    return f"node {node_id} ({title(workflow[node_id])})" if node_id in workflow else f"node {node_id}"


def find_node(workflow: Workflow, text: str) -> str:
    """The id of the node with this id, title or class_type; upper and lower case count only in ids.

    Raises:
        ValueError: no such node (the message lists all nodes), or several (the message lists their ids).
    """
    if text in workflow:
        return text
    names: tuple[Callable[[dict[str, Any]], str], ...] = (title, lambda node: node["class_type"])
    for name in names:
        found = [node_id for node_id, node in workflow.items() if name(node).casefold() == text.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"the workflow has {len(found)} nodes {shortened(text)!r}: choose one by its id, {', '.join(found)}")
    listed = ", ".join(f"{node_id} ({title(node)}: {node['class_type']})" for node_id, node in workflow.items())
    raise ValueError(f"the workflow has no node {shortened(text)!r}; it has {listed}")


def set_inputs(workflow: Workflow, texts: Sequence[str]) -> Workflow:
    """A copy of the workflow with inputs set by NODE.INPUT=VALUE. VALUE is JSON, or else a text.

    Raises:
        ValueError: not of that form, or no such node or input (the message lists those there are).
    """
    workflow = copy.deepcopy(workflow)
    for text in texts:
        place, equals, value = text.partition("=")
        node, _, key = place.rpartition(".")  # titles may contain dots, input names do not
        if not (equals and node and key):
            raise ValueError(f"--set {shortened(text)!r} is not of the form NODE.INPUT=VALUE, such as 4.strength=0.5")
        node_id = find_node(workflow, node)
        inputs = workflow[node_id]["inputs"]
        if key not in inputs:
            has = ", ".join(inputs) or "none"
            raise ValueError(f"{node_name(workflow, node_id)} has no input {shortened(key)!r}; its inputs are: {has}")
        inputs[key] = parsed(value)
    return workflow


def parsed(text: str) -> Any:
    """The JSON value of a text, or the text itself. NaN and Infinity stay texts: they are not JSON and servers reject them."""

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)  # 1e999 is infinity

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except ValueError:
        return text


def photo_node(workflow: Workflow, wanted: str | None = None) -> str:
    """The id of the node whose input `image` takes the photo: the wanted node, or else the only LoadImage.

    Raises:
        ValueError: there is no such node, or there are several LoadImage nodes and none is wanted.
    """
    if wanted is not None:
        node_id = find_node(workflow, wanted)
        if "image" not in workflow[node_id]["inputs"]:
            raise ValueError(f"{node_name(workflow, node_id)} has no input 'image' for the photo: choose another --photo-node")
        return node_id
    found = [node_id for node_id, node in workflow.items() if node["class_type"] == "LoadImage"]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError("the workflow has no LoadImage node for the photos: add one, or choose a node with --photo-node")
    listed = ", ".join(f"{node_id} ({title(workflow[node_id])})" for node_id in found)
    raise ValueError(f"the workflow has {len(found)} LoadImage nodes, {listed}: choose one with --photo-node")
