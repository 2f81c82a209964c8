"""What a ComfyUI server says of a run: an entry of its history, or its refusal of a workflow."""

from __future__ import annotations

from typing import Any

from .workflow import Workflow, node_name


class Failed(Exception):
    """The run of one photo failed."""


class Broken(Failed):
    """The photo itself cannot be read: other servers would fail too."""


def succeeded(entry: dict[str, Any]) -> bool:
    """Whether the run of a history entry ended without an error."""
    return (entry.get("status") or {}).get("status_str") == "success"


def seconds(entry: dict[str, Any]) -> float | None:
    """How long a run took by the server's own clock; None where the entry has no times."""
    times = [data["timestamp"] for _, data in entry["status"].get("messages", []) if "timestamp" in data]
    return round((max(times) - min(times)) / 1000, 3) if times else None


def outputs(
    workflow: Workflow, entry: dict[str, Any], photo_node: str = ""
) -> tuple[list[tuple[str, dict[str, str]]], dict[str, Any]]:
    """What a run made: ([(node id, file)], {node's name: other results, such as texts}).

    Previews count only where nothing was saved.

    Raises:
        Failed: the run ended in an error, or made nothing.
        Broken: the error was that of the node that takes the photo.
    """
    if not succeeded(entry):
        kinds = [(kind, data.get("node_id")) for kind, data in (entry.get("status") or {}).get("messages", [])]
        raise (Broken if ("execution_error", photo_node) in kinds else Failed)(failure(workflow, entry))
    files: list[tuple[str, dict[str, str]]] = []
    results: dict[str, Any] = {}
    for node_id, made in entry["outputs"].items():
        for key, values in made.items():
            items = values if isinstance(values, list) else [values]
            found = [item for item in items if isinstance(item, dict) and "filename" in item]
            files += [(node_id, item) for item in found]
            if items and not found and key != "animated":  # only flags the files that move
                results.setdefault(node_name(workflow, node_id), {})[key] = values
    saved = [(node_id, file) for node_id, file in files if file.get("type") == "output"]
    if not files and not results:
        raise Failed("the workflow made nothing: give it an output node, such as SaveImage")
    return saved or files, results


def failure(workflow: Workflow, entry: dict[str, Any]) -> str:
    """Why a run failed, in one sentence: the node and its message."""
    for kind, data in reversed((entry.get("status") or {}).get("messages", [])):
        if kind == "execution_error":
            return f"{node_name(workflow, data['node_id'])}: {' '.join(data['exception_message'].split())}"
        if kind == "execution_interrupted":
            return f"{node_name(workflow, data['node_id'])}: it was cancelled on the server"
    return "the server does not say why it failed"


def refusal(workflow: Workflow, answer: dict[str, Any]) -> str:
    """Why a server refuses a workflow, in one sentence; empty where its answer does not say."""
    parts = []
    for node_id, found in (answer.get("node_errors") or {}).items():
        reasons = [": ".join(filter(None, (error.get("message"), error.get("details")))) for error in found.get("errors", [])]
        parts.append(f"{node_name(workflow, node_id)}: {', '.join(reasons)}")
    error = answer.get("error") or {}
    if not parts and isinstance(error, dict):
        parts = [" ".join(filter(None, (error.get("message"), error.get("details"))))]
    return " ".join("; ".join(parts or [str(error)]).split())
