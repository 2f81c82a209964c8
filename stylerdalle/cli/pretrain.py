"""Commands that make a translator: prepare (pictures to shards of tokens), pretrain."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from .. import storage
from ..distributed import processes, rank_and_world
from .console import bar, say
from .options import (
    add_config_options,
    add_device_options,
    add_preset_option,
    add_run_options,
    add_threads_option,
    given_options,
    number,
)

if TYPE_CHECKING:
    from ..learn.pictures import Picture
    from ..learn.prepared import PreparedTokens
    from ..tokenizers.protocol import ImageTokenizer


def prepare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", nargs="+", required=True, metavar="PATH", help="pictures, folders of them, or .tar shards")
    parser.add_argument(
        "--captions", type=Path, metavar="FILE", help="annotation file in COCO's format; pictures are matched by file name"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer file that encodes the pictures")
    source.add_argument(
        "--bundle",
        default="mini",
        metavar="NAME",
        help="bundle whose tokenizer encodes the pictures: its name, or its folder (default: mini)",
    )
    parser.add_argument(
        "--sides",
        type=number(int, 1, 8192),
        nargs="+",
        default=[128, 256],
        metavar="PX",
        help="sides of the source and the target crop, or one side for a translator of upscale 1 (default: 128 256, the paper's)",
    )
    parser.add_argument("--per-shard", type=number(int, 1), default=5000, metavar="N", help="pictures per shard (default: 5000)")
    parser.add_argument("--batch", type=number(int, 1), default=8, metavar="N", help="pictures encoded at once (default: 8)")
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the larger crop in the shards too; tuning needs it (default: yes)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the shards; resumes there if interrupted",
    )
    add_threads_option(parser)
    add_device_options(parser)
    parser.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> int:
    import torch

    from ..bundle import tokenizer_file
    from ..learn.prepare import PrepareConfig, prepare

    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.tokenizer or tokenizer_file(args.bundle)
    tokenizer, digest = open_tokenizer(path, args), storage.sha256(path)
    config = PrepareConfig(tuple(args.sides), args.per_shard, args.pictures)
    share = rank_and_world()
    with bar("prepare") as progress:
        index = prepare(tokenizer, digest, args.images, args.output, config, args.captions, args.batch, share, progress)
    made = f"{index['count']:,} pictures in {len(index['shards'])} shards, {index['captioned']:,} with captions"
    damaged = f", {index['damaged']} damaged ones left out" if index["damaged"] else ""
    missing = f"; {index['missing']} shards are still being made by other processes" if index["missing"] else ""
    say(f"{args.output}: {made}{damaged}{missing}")
    return 0


def open_tokenizer(path: Path, args: argparse.Namespace) -> ImageTokenizer:
    """Open a tokenizer file as --device and --dtype say."""
    from ..checkpoint import load_tokenizer
    from ..device import choose_device, choose_dtype

    device = choose_device(args.device)
    return load_tokenizer(path, device, choose_dtype(device, args.dtype))


def pretrain_options(parser: argparse.ArgumentParser) -> None:
    from ..learn.options import PretrainConfig

    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer whose tokens are translated (default: that of mini)",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", type=Path, metavar="FOLDER", help="folder made by stylerdalle prepare, instead of --images")
    add_run_options(parser, "translator", images=source)
    parser.add_argument(
        "--valid", nargs="+", metavar="PATH", help="with --tokens: pictures to validate on, which must not be among the tokens"
    )
    add_device_options(parser)
    add_preset_option(parser)
    add_config_options(parser.add_argument_group("pretraining"), PretrainConfig)
    parser.set_defaults(run=run_pretrain)


def run_pretrain(args: argparse.Namespace) -> int:
    from ..bundle import tokenizer_file
    from ..checkpoint import save_translator
    from ..learn.options import PretrainConfig
    from ..learn.prepared import PreparedTokens
    from ..learn.pretraining import train
    from ..learn.sources import pictures
    from ..tune.presets import pretrain_options as preset_options
    from .training import check_start, final_output, open_run, print_output, read_split, recipe

    if args.valid and not args.tokens:
        raise ValueError("--valid goes with --tokens: of --images some are kept for validation anyway, leave it out")
    args.tokenizer = args.tokenizer or tokenizer_file("mini")
    config = PretrainConfig(**preset_options(args.preset, given_options(args, PretrainConfig)))
    output = check_start(args, args.tokenizer)
    train_on: list[Picture] | PreparedTokens
    if args.tokens:
        storage.read_metadata(args.tokenizer)  # raises an error where it is missing or foreign
        grids = (config.grid, config.grid * config.upscale)
        train_on = PreparedTokens(args.tokens, storage.sha256(args.tokenizer), grids)
        valid = list(islice(pictures(args.valid), 8)) if args.valid else []
    else:
        train_on, valid = read_split(args.images)
    learnt_from = train_on if isinstance(train_on, list) else ()  # the hash of prepared tokens is among the run's options
    run = open_run(args, "translator", learnt_from, tokenizer=args.tokenizer)
    translator = train(open_tokenizer(args.tokenizer, args), train_on, config, run, valid)
    if not processes().main:
        return 0
    output = final_output(args, output)
    save_translator(output, translator, recipe=recipe(args, config))
    return print_output(output)
