"""Commands that list what is there: styles, info."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage
from .console import say
from .options import add_model_options

if TYPE_CHECKING:
    from ..bundle import Bundle

SHOWN = ("artist", "title", "year", "near", "words", "weight")  # of a work, in the table


def styles_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--near",
        metavar="TEXT",
        help="list instead the prompts that the bundle was trained on, nearest to a text first, and the works of art in its "
        "library that are nearest to the text",
    )
    what.add_argument(
        "--works",
        action="store_true",
        help="list instead the works of art in the bundle's library, their sources and licences",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per style, prompt or work")
    add_model_options(parser)
    parser.set_defaults(run=run_styles)


def run_styles(args: argparse.Namespace) -> int:
    from ..bundle import load_bundle
    from ..resolve import list_styles

    bundle = load_bundle(args.bundle, args.device, args.dtype)
    if args.near is not None:
        return print_near(bundle, args.near, args.json)
    if args.works:
        return print_works(bundle, args.json)
    rows = [{"name": style.name, "prompt": style.prompt, "method": method(style.metadata)} for style in list_styles(bundle)]
    if args.json:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        say(f"the bundle {args.bundle} has no styles yet: learn one with stylerdalle tune")
    return 0


def print_near(bundle: Bundle, text: str, as_json: bool) -> int:
    """The prompts and the works near to a text; in JSON every prompt's object has the text's works."""
    from ..resolve import near_prompts
    from ..tune.library import near_works

    prompts = [{"prompt": prompt, "near": f"{similarity:.2f}"} for prompt, similarity in near_prompts(bundle, text)]
    works = [
        {**near.work.note(), "near": f"{near.cosine:.2f}", "words": f"{near.words:.2f}", "weight": f"{near.weight:.2f}"}
        for near in near_works(bundle, text)
    ]
    if as_json:
        return print_json([{**row, "works": works} for row in prompts])
    if prompts:
        print_table(prompts)
    if works:
        print("\nworks of art; near: CLIP's cosine; words: share of the text's; weight: in the reward of tune, 0 is not used")
        return print_table([{key: row[key] for key in SHOWN} for row in works])
    return 0


def print_works(bundle: Bundle, as_json: bool) -> int:
    """The works of a bundle's library, with their sources and licences."""
    from ..tune.library import read_library

    works = read_library(bundle.exemplars_path) if bundle.exemplars_path else []
    if as_json:
        return print_json([work.note() for work in works])
    for line in sorted(work.attribution() for work in works):
        say(line)
    if not works:
        say(f"the bundle {bundle.name} has no library of exemplars")
    return 0


def print_json(rows: Iterable[Mapping[str, Any]]) -> int:
    for row in rows:
        print(json.dumps(row))
    return 0


def print_table(rows: Sequence[Mapping[str, str]]) -> int:
    wide = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in wide}, *rows]:
        say("  ".join(row[key].ljust(wide[key]) for key in wide).rstrip())
    return 0


def method(metadata: Mapping[str, str]) -> str:
    """How a style was learnt, from its metadata: `method`; in `recipe` the method of tuning, or the last command."""
    found = _decoded(metadata.get("recipe", ""))
    recipe = found if isinstance(found, dict) else {}
    last = recipe["polish"].get("command") if isinstance(recipe.get("polish"), dict) else None
    return str(metadata.get("method") or recipe.get("method") or last or recipe.get("command") or "unknown")


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
