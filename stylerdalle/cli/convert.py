"""Commands that bring official weights: fetch, convert. Each function sets up its command's options."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import storage
from ..convert.registry import KINDS, convert, origin
from ..images.files import check_output
from .console import bar


def fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="dalle, rudalle: the tokenizer of that bundle; clip: the CLIP of both")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="a bundle's folder (default: weights/NAME, which is --bundle NAME)"
    )
    parser.add_argument(
        "--from", dest="sources", nargs="+", type=Path, default=[], metavar="FILE", help="files downloaded by hand"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.set_defaults(run=run_fetch)


def run_fetch(args: argparse.Namespace) -> int:
    from ..convert.fetch import fetch as bring
    from ..convert.fetch import known

    table = known()
    if args.name not in table:
        raise ValueError(f"weights {args.name!r} are not known: {', '.join(table)}")
    files = bring(table[args.name], args.to, args.sources, args.overwrite, bar)
    for source in json.loads(storage.read_metadata(files[0])["source"]):
        print(f"{source.get('url', source['file'])}: {source['bytes']:,} bytes, sha256 {source['sha256']}")
    for path in files:
        describe(path)
    return 0


def convert_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="foreign files; a dVAE is two")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    output = check_output(args.output, args.overwrite, (".safetensors",))
    convert(args.kind, args.sources).save(output, source=[origin(source) for source in args.sources])
    describe(output)
    return 0


def describe(path: Path) -> None:
    """One line on a file that is there now."""
    metadata = storage.read_metadata(path)
    arch = ", ".join(f"{key} {value}" for key, value in json.loads(metadata["arch"]).items() if key != "type")
    print(f"{path}: {metadata['kind']} of {path.stat().st_size / 1e6:,.1f} MB ({arch})")
