"""Saved workflows keep working: the ids, inputs and outputs of every node are those in contract.json.

Inputs are append-only; anything else that changes here breaks workflows and needs a new node id and a changelog line.
To update the file: UPDATE_CONTRACT=1 pytest tests/host/test_contract.py
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONTRACT = Path(__file__).with_name("contract.json")
LIMITS = ("default", "min", "max", "step", "multiline", "control_after_generate")


def describe(node: Any) -> dict[str, Any]:
    """A node's schema without its texts, and without the options of combos, which are files."""
    schema = node.GET_SCHEMA()
    inputs = []
    for i in schema.inputs:
        limits = {} if i.io_type == "COMBO" else {key: getattr(i, key, None) for key in LIMITS}
        optional = {"optional": True} if i.optional else {}
        given = {key: value for key, value in limits.items() if value is not None}
        inputs.append({"id": i.id, "type": i.io_type, **optional, **given})
    outputs = [{"name": o.display_name, "type": o.io_type} for o in schema.outputs]
    return {"category": schema.category, "inputs": inputs, "outputs": outputs}


def test_node_schemas_are_those_of_the_contract(comfy: SimpleNamespace) -> None:
    found = {name: describe(comfy.nodes.NODE_CLASS_MAPPINGS[name]) for name in comfy.ids}
    if os.environ.get("UPDATE_CONTRACT"):
        CONTRACT.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(CONTRACT.read_text())
