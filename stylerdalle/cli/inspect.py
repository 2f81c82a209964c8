"""Commands that look: styles, info, score, reconstruct."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from .. import storage
from ..bundle import load_bundle
from ..clip import scores as reward
from ..images.files import SUFFIXES, write_picture
from ..resolve import check_prompt, list_styles, near_prompts, warn_of_unknown_words
from ..tokenizers.codec import decode, encode
from ..translator.style import Style
from .console import report
from .options import add_model_options
from .stylize import plan, read


def styles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--near", metavar="TEXT", help="the prompts that the bundle knows best near to a text, nearest first")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and style")
    add_model_options(parser)
    parser.set_defaults(run=run_styles)


def run_styles(args: argparse.Namespace) -> int:
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    if args.near is not None:
        near = near_prompts(bundle, args.near)
        rows = [{"prompt": text, "near": f"{similarity:.2f}"} for text, similarity in near]
    else:
        rows = [{"name": style.name, "prompt": style.prompt, "method": method(style)} for style in list_styles(bundle)]
    if args.json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        wide = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
        for row in [{key: key for key in wide}, *rows]:
            print("  ".join(row[key].ljust(wide[key]) for key in wide).rstrip())
    else:
        print(f"the bundle {args.bundle} has no styles yet: learn one with stylerdalle tune")
    return 0


def method(style: Style) -> str:
    """How a style was learnt, from its metadata: `method`, or `method` in `recipe`."""
    try:
        recipe = json.loads(style.metadata.get("recipe", "{}"))
    except json.JSONDecodeError:
        recipe = {}
    return style.metadata.get("method") or str(recipe.get("method", "") if isinstance(recipe, dict) else "") or "unknown"


def info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
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
        "metadata": metadata,
    }
    if args.json:
        print(json.dumps(facts))
        return 0
    facts.pop("metadata")
    for key, value in {**facts, **metadata}.items():
        text = f"{value:,}" if isinstance(value, int) else json.dumps(value) if isinstance(value, (dict, list)) else value
        print(f"{key + ':':<14}{text}")
    return 0


def _decoded(text: str) -> Any:
    """Metadata values that are JSON objects or lists as such, others as they are."""
    try:
        return json.loads(text) if text[:1] in ("{", "[") else text
    except json.JSONDecodeError:
        return text


def score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--text", required=True, help="what the pictures should show, such as a style prompt")
    parser.add_argument("--json", action="store_true", help='one JSON object a line and picture: {"image", "text", "score"}')
    add_model_options(parser)
    parser.set_defaults(run=run_score)


def run_score(args: argparse.Namespace) -> int:
    text = check_prompt(args.text, "text")
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    warn_of_unknown_words(bundle.clip_path, text)
    failed = False
    with torch.inference_mode():
        match = reward.judge(bundle.clip, text)
        for path in args.images:
            try:
                picture = read(path)
            except ValueError as problem:
                report("score", problem)
                failed = True
                continue
            value = match(picture)
            if args.json:
                print(json.dumps({"image": str(path), "text": text, "score": round(value, 6)}), flush=True)
            else:
                print(f"{value:+.4f}  {path}", flush=True)
    return 2 if failed else 0


def reconstruct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", type=Path, metavar="PHOTO")
    parser.add_argument("--output", required=True, metavar="PATH", help=f"a file ({', '.join(SUFFIXES)}) or a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    add_model_options(parser)
    parser.set_defaults(run=run_reconstruct)


def run_reconstruct(args: argparse.Namespace) -> int:
    jobs, problems = plan([args.photo], args.output, args.overwrite)
    if problems:
        raise ValueError(problems[0])
    images = read(args.photo)
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    source = images.to(bundle.device)
    out = decode(bundle.tokenizer, encode(bundle.tokenizer, source[:, :3], source[:, 3:] if source.shape[1] == 4 else None)).cpu()
    write_picture(jobs[0][1], out, args.overwrite)
    error = torch.nn.functional.mse_loss(out[:, :3], images[:, :3]).item()
    print(f"{jobs[0][1]}: {out.shape[-1]} x {out.shape[-2]} px, PSNR {-10 * math.log10(max(error, 1e-10)):.2f} dB")
    return 0
