"""Commands that list what is there: styles, info."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import storage
from .console import say
from .options import add_model_options


def styles_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--near", metavar="TEXT", help="list instead the prompts that the bundle was trained on, nearest to a text first"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per style")
    add_model_options(parser)
    parser.set_defaults(run=run_styles)


def run_styles(args: argparse.Namespace) -> int:
    from ..bundle import load_bundle
    from ..resolve import list_styles, near_prompts

    bundle = load_bundle(args.bundle, args.device, args.dtype)
    if args.near is not None:
        rows = [{"prompt": text, "near": f"{similarity:.2f}"} for text, similarity in near_prompts(bundle, args.near)]
    else:
        rows = [{"name": style.name, "prompt": style.prompt, "method": method(style.metadata)} for style in list_styles(bundle)]
    if args.json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        wide = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
        for row in [{key: key for key in wide}, *rows]:
            say("  ".join(row[key].ljust(wide[key]) for key in wide).rstrip())
    else:
        say(f"the bundle {args.bundle} has no styles yet: learn one with stylerdalle tune")
    return 0


def method(metadata: Mapping[str, str]) -> str:
    """How a style was tuned, from its metadata: `method`, or `method` in `recipe`."""
    recipe = _decoded(metadata.get("recipe", ""))
    return metadata.get("method") or str(recipe.get("method", "") if isinstance(recipe, dict) else "") or "unknown"


def info_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file made by StylerDALLE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_info)


def run_info(args: argparse.Namespace) -> int:
    metadata = {key: _decoded(value) for key, value in storage.read_metadata(args.file).items()}
    sizes = [math.prod(shape) for shape in storage.shapes(args.file).values()]
    facts: dict[str, Any] = {
        "file": str(args.file),
        "tensors": len(sizes),
        "parameters": sum(sizes),
        "megabytes": round(args.file.stat().st_size / 1e6, 2),
        "sha256": storage.sha256(args.file),
    }
    if args.json:
        print(json.dumps({**facts, "metadata": metadata}))
        return 0
    for key, value in {**facts, **metadata}.items():
        text = f"{value:,}" if isinstance(value, int) else json.dumps(value) if isinstance(value, (dict, list)) else value
        say(f"{key + ':':<14}{text}")
    return 0


def _decoded(text: str) -> Any:
    """A metadata value: the object or list where it is JSON of one, else the text."""
    try:
        return json.loads(text) if text[:1] in ("{", "[") else text
    except json.JSONDecodeError:
        return text
