"""Workflows in ComfyUI's API format, {node id: {"class_type", "inputs", "_meta": {"title"}}}: read, find nodes, set inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Workflow = dict[str, dict[str, Any]]


def read_workflow(path: str | Path) -> Workflow:
    """An API-format workflow file.

    Raises:
        ValueError: not there, not JSON, or the format of ComfyUI's page (the sentence says which file to give).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the workflow {path} does not exist: check the path")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:  # JSON's and UTF-8's
        raise ValueError(f"{path} is not JSON ({error}): give a workflow in ComfyUI's API format") from error
    if isinstance(found, dict) and isinstance(found.get("nodes"), list):
        twin = path.parent / "api" / path.name
        do = f"give {twin}" if twin.is_file() else "in ComfyUI choose Workflow > Export (API), and give that file"
        raise ValueError(f"{path} is a workflow for ComfyUI's page, which its HTTP API does not take: {do}")
    nodes = found.values() if isinstance(found, dict) else ()
    if not nodes or not all(isinstance(n, dict) and "class_type" in n and isinstance(n.get("inputs"), dict) for n in nodes):
        raise ValueError(f"{path} is not a workflow in ComfyUI's API format: in ComfyUI choose Workflow > Export (API)")
    return dict(found)


def title(node: dict[str, Any]) -> str:
    return str((node.get("_meta") or {}).get("title") or node["class_type"])


def node_name(workflow: Workflow, number: str) -> str:
    """How sentences for the user call a node: `node 4 (Translate)`."""
    return f"node {number} ({title(workflow[number])})" if number in workflow else f"node {number}"


def find_node(workflow: Workflow, text: str) -> str:
    """The id of the node meant by its id, title or class_type; the last two without regard to case.

    Raises:
        ValueError: there is none (all are listed), or several are called so (their ids are).
    """
    if text in workflow:
        return text
    called: tuple[Callable[[dict[str, Any]], str], ...] = (title, lambda node: node["class_type"])
    for name in called:
        found = [number for number, node in workflow.items() if name(node).casefold() == text.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"the workflow has {len(found)} nodes {text!r}: say which by its id, {', '.join(found)}")
    listed = ", ".join(f"{number} ({title(node)}: {node['class_type']})" for number, node in workflow.items())
    raise ValueError(f"the workflow has no node {text!r}; it has {listed}")


def set_inputs(workflow: Workflow, texts: Sequence[str]) -> Workflow:
    """A copy with inputs set by NODE.INPUT=VALUE; VALUE is read as JSON where it is JSON, else it is a text.

    Raises:
        ValueError: not of that form, or the node or the input is not there (what there is is listed).
    """
    workflow = copy.deepcopy(workflow)
    for text in texts:
        place, equals, value = text.partition("=")
        node, _, key = place.rpartition(".")  # titles have dots, names of inputs have none
        if not (equals and node and key):
            raise ValueError(f"--set {text!r} is not of the form NODE.INPUT=VALUE, such as 4.strength=0.5")
        number = find_node(workflow, node)
        inputs = workflow[number]["inputs"]
        if key not in inputs:
            has = ", ".join(inputs) or "none"
            raise ValueError(f"{node_name(workflow, number)} has no input {key!r}; its inputs are: {has}")
        inputs[key] = parsed(value)
    return workflow


def parsed(text: str) -> Any:
    """The JSON value of a text, or the text itself; NaN and Infinity, which servers refuse, stay texts."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def photo_node(workflow: Workflow, wanted: str | None = None) -> str:
    """The id of the node whose input `image` takes the photo: the only LoadImage, or the one wanted.

    Raises:
        ValueError: there is no such node, or more than one and none is wanted.
    """
    if wanted is not None:
        number = find_node(workflow, wanted)
        if "image" not in workflow[number]["inputs"]:
            raise ValueError(f"{node_name(workflow, number)} has no input 'image' for the photo: choose another --photo-node")
        return number
    found = [number for number, node in workflow.items() if node["class_type"] == "LoadImage"]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError("the workflow has no LoadImage node for the photos: add one, or say which node with --photo-node")
    listed = ", ".join(f"{number} ({title(workflow[number])})" for number in found)
    raise ValueError(f"the workflow has {len(found)} LoadImage nodes, {listed}: say which takes the photos with --photo-node")
