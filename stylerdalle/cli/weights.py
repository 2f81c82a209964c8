"""Commands that bring official weights: fetch, convert."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import storage
from .console import bar, say


def fetch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        help="dalle or rudalle: the tokenizer of that bundle, and a translator made of it; clip: the CLIP of both",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="folder of a bundle (default: those under weights/ that use these weights)",
    )
    parser.add_argument(
        "--from",
        dest="sources",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="use files downloaded by hand, and download nothing",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(run=run_fetch)


def run_fetch(args: argparse.Namespace) -> int:
    from ..convert.fetch import fetch, known

    table = known()
    if args.name not in table:
        raise ValueError(f"weights {args.name!r} are not known: {', '.join(table)}")
    files = fetch(table[args.name], args.to, args.sources, args.overwrite, bar)
    for source in json.loads(storage.read_metadata(files[0])["source"]):
        say(f"{source.get('url', source['file'])}: {source['bytes']:,} bytes, sha256 {source['sha256']}")
    for path in files:
        describe(path)
        if storage.read_metadata(path)["kind"] == "tokenizer":
            complete(path)
    return 0


def complete(tokenizer: Path) -> None:
    """Make the translator that a bundle lacks of its tokenizer's codebook, and say so."""
    from ..convert.identity import make_translator, wanted

    translator = tokenizer.with_name("translator.safetensors")
    if not wanted(tokenizer, translator):
        return
    made = make_translator(tokenizer, translator)
    say(
        f"{translator}: made of the tokenizer's codebook in {made.seconds:.1f} s; it returns {made.returned:,} of "
        f"{made.tokens:,} tokens as they are, so that it changes nothing without a style: learn styles with stylerdalle tune"
    )


def convert_options(parser: argparse.ArgumentParser) -> None:
    from ..convert.registry import CONVERTERS

    parser.add_argument("kind", choices=tuple(CONVERTERS), metavar="KIND", help=f"what the sources are: {', '.join(CONVERTERS)}")
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="foreign files: one, or a dVAE's encoder and decoder"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    from ..convert.registry import convert, origin
    from ..images.files import check_output

    output = check_output(args.output, args.overwrite, (".safetensors",), args.sources)
    convert(args.kind, args.sources).save(output, source=[origin(source) for source in args.sources])
    describe(output)
    return 0


def describe(path: Path) -> None:
    """Print one line about a model file."""
    metadata = storage.read_metadata(path)
    arch = ", ".join(f"{key} {value}" for key, value in json.loads(metadata["arch"]).items() if key != "type")
    say(f"{path}: {metadata['kind']} of {path.stat().st_size / 1e6:,.1f} MB ({arch})")
