"""The English texts that ComfyUI translates from are those of the nodes' schemas, and a server hands all languages out.

To write locales/en anew: UPDATE_LOCALES=1 pytest tests/host/test_locales.py; tests/test_help.py then says what the others lack.
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
