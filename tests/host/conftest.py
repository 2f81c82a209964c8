"""Loads ComfyUI and the pack into this process, without a server. Needs a checkout of ComfyUI (COMFYUI_DIR, default ~/ComfyUI)
and its requirements; without them these tests are skipped, with the reason.
"""

import asyncio
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import style, tokenizer, translator, write_bundle, write_hypernetwork, write_library

from stylerdalle import checkpoint, storage

PACK = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ.get("COMFYUI_DIR", "~/ComfyUI")).expanduser()


def skip(reason: str) -> None:
    warnings.warn(f"the tests with ComfyUI are skipped: {reason}", stacklevel=2)
    pytest.skip(reason)


def write_models(user: Path, extra: Path) -> None:
    """Write the test models.

    user: bundles `tiny` and `prompted` (folders; `prompted` accepts any prompt and has works) and `apart` (three files).
    extra: bundle `half` (upscale 2) and the style `charcoal`.
    """
    write_bundle(user / "tiny")
    shutil.copytree(user / "tiny", user / "prompted")
    write_hypernetwork(user / "prompted")
    write_library(user / "prompted" / "exemplars.tar")
    write_bundle(extra / "half", upscale=2)
    for part, folder in {"tokenizer": "tokenizers", "translator": "translators", "clip": "clip"}.items():
        (user / folder).mkdir()
        shutil.copy(user / "tiny" / f"{part}.safetensors", user / folder / "apart.safetensors")
    base = storage.sha256(user / "tiny" / "translator.safetensors")
    charcoal = style(translator(tokenizer()), "charcoal", base)
    checkpoint.save_style(extra / "styles" / "charcoal.safetensors", charcoal)
    (user / "README.md").write_text("not a model")


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """ComfyUI's modules `nodes`, `folder_paths` and `model_management`, its `base` folder, and our `ids`."""
    if not (COMFY / "main.py").is_file():
        skip(f"there is no ComfyUI in {COMFY}: set COMFYUI_DIR to a checkout")
    base, extra = tmp_path_factory.mktemp("Comfy UI für 画像"), tmp_path_factory.mktemp("extra")
    write_models(base / "models" / "stylerdalle", extra)
    sys.path.insert(0, str(COMFY))  # before the pack's root, which also has a folder `nodes`
    try:
        from comfy.cli_args import args

        args.cpu, args.base_directory = not torch.cuda.is_available(), str(base)
        import folder_paths
        import utils.install_util  # noqa: F401  (before `nodes` puts ComfyUI's folder comfy/, which has a utils.py, on the path)
        from comfy import model_management

        import nodes
    except ModuleNotFoundError as error:
        sys.path.remove(str(COMFY))
        skip(f"ComfyUI in {COMFY} cannot be imported ({error}): install its requirements.txt")
    folder_paths.add_model_folder_path("stylerdalle", str(extra))  # like a line in extra_model_paths.yaml
    for name in ("images", "mask", "preview_any", "primitive", "video"):  # the workflows use some of their nodes
        assert asyncio.run(nodes.load_custom_node(str(COMFY / "comfy_extras" / f"nodes_{name}.py"), module_parent="comfy_extras"))
    assert asyncio.run(nodes.load_custom_node(str(PACK))), "ComfyUI could not load the pack"
    ids = sorted(name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("StylerDALLE_"))
    return SimpleNamespace(nodes=nodes, folder_paths=folder_paths, model_management=model_management, base=base, ids=ids)


@pytest.fixture
def run(comfy: SimpleNamespace) -> Callable[..., tuple[Any, ...]]:
    """run("StylerDALLE_Load", bundle="tiny") -> the node's outputs, run as ComfyUI does; other widgets have their defaults."""

    def execute(node_id: str, **inputs: Any) -> tuple[Any, ...]:
        node = comfy.nodes.NODE_CLASS_MAPPINGS[node_id]
        widgets = {i.id: i.default for i in node.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
        with torch.inference_mode():
            outputs: tuple[Any, ...] = node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**{**widgets, **inputs}).args
        return outputs

    return execute
