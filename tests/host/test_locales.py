"""locales/en has the texts of the nodes' schemas, and a server serves all languages.

To update locales/en: UPDATE_LOCALES=1 pytest tests/host/test_locales.py. tests/test_help.py then lists what the other
languages lack.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

from host.server import PACK, Server

ENGLISH = PACK / "locales" / "en" / "nodeDefs.json"


def texts(node: Any) -> dict[str, Any]:
    """A node's texts under the keys of ComfyUI's frontend; outputs are numbered."""
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


def test_a_server_hands_out_every_language_and_its_help(comfy: SimpleNamespace, tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.until(server.up)
        served = server("/i18n")
        for language in ("en", "ja", "zh"):
            path = PACK / "locales" / language / "nodeDefs.json"
            assert served[language]["nodeDefs"] == json.loads(path.read_text(encoding="utf-8"))
        for name in ("StylerDALLE_Load.md", "StylerDALLE_Load/ja.md", "StylerDALLE_Load/zh.md", "images/StylerDALLE_Load.jpg"):
            with urlopen(f"{server.url}/extensions/ComfyUI-StylerDALLE/docs/{name}", timeout=30) as answer:
                assert answer.read() == (PACK / "web" / "docs" / name).read_bytes()
    finally:
        server.kill()
