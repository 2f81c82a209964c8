"""The English texts that ComfyUI translates from are those of the nodes' schemas, and a server hands all languages out.

To write locales/en anew: UPDATE_LOCALES=1 pytest tests/host/test_locales.py; tests/test_help.py then says what the others lack.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from host.server import PACK

ENGLISH = PACK / "locales" / "en" / "nodeDefs.json"


def texts(node: Any) -> dict[str, Any]:
    """A node's texts under the keys that ComfyUI's frontend asks for; outputs go by their place."""
    schema = node.GET_SCHEMA()
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs},
        "outputs": {str(k): {"name": o.display_name, "tooltip": o.tooltip} for k, o in enumerate(schema.outputs)},
    }


def test_the_english_texts_are_those_of_the_schemas(comfy: SimpleNamespace) -> None:
    found = {name: texts(comfy.nodes.NODE_CLASS_MAPPINGS[name]) for name in comfy.ids}
    if os.environ.get("UPDATE_LOCALES"):
        ENGLISH.parent.mkdir(parents=True, exist_ok=True)
        ENGLISH.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert found == json.loads(ENGLISH.read_text(encoding="utf-8"))


def test_comfyui_hands_out_every_language(comfy: SimpleNamespace, tmp_path: Path) -> None:
    from app.custom_node_manager import CustomNodeManager

    folder = tmp_path / "custom_nodes"
    folder.mkdir()
    (folder / "ComfyUI-StylerDALLE").symlink_to(PACK, target_is_directory=True)
    before = comfy.folder_paths.folder_names_and_paths["custom_nodes"]
    comfy.folder_paths.folder_names_and_paths["custom_nodes"] = ([str(folder)], set())
    try:
        served = CustomNodeManager().build_translations()  # what GET /i18n answers
    finally:
        comfy.folder_paths.folder_names_and_paths["custom_nodes"] = before
    for language in ("en", "ja", "zh"):
        path = PACK / "locales" / language / "nodeDefs.json"
        assert served[language]["nodeDefs"] == json.loads(path.read_text(encoding="utf-8"))
