"""Commands that train: train-tokenizer, train-clip, prepare, pretrain, tune. Each function sets up its command's options.

All of them check the output first, resume from their run folder, and end in one model file.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from .. import checkpoint, storage
from ..distributed import processes
from ..images.files import check_output
from ..learn.pictures import Picture, split
from ..learn.run import Run
from ..learn.sources import read_pictures
from .options import RUNS, add_config_options, add_device_options, add_model_options, add_run_options, given_options, number

FEWEST = 100  # pictures: one in a hundred is kept for validation


def train_tokenizer(parser: argparse.ArgumentParser) -> None:
    from ..training.tokenizer import TokenizerConfig, train

    add_run_options(parser, "tokenizer")
    add_config_options(parser, TokenizerConfig)

    def run(args: argparse.Namespace) -> int:
        output, train_on, valid, state = start(args, "tokenizer")
        config = TokenizerConfig(**given_options(args, TokenizerConfig))
        checkpoint.save_tokenizer(output, train(train_on, valid, config, state), recipe=recipe(args, config))
        return done(output)

    parser.set_defaults(run=run)


def train_clip(parser: argparse.ArgumentParser) -> None:
    from ..training.clip import ClipConfig, train, words

    add_run_options(parser, "clip")
    add_config_options(parser, ClipConfig)

    def run(args: argparse.Namespace) -> int:
        output, train_on, valid, state = start(args, "clip")
        config = ClipConfig(**given_options(args, ClipConfig))
        model = train(train_on, valid, config, state)
        checkpoint.save_clip(output, model, recipe=recipe(args, config), words=" ".join(words(train_on)))
        return done(output)

    parser.set_defaults(run=run)


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", nargs="+", required=True, metavar="PATH", help="pictures, folders of them, or .tar shards")
    parser.add_argument(
        "--captions", type=Path, metavar="FILE", help="an annotation file in COCO's form, its pictures found by file name"
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--tokenizer", type=Path, metavar="FILE", help="whose tokens")
    whose.add_argument("--bundle", default="mini", metavar="NAME", help="a bundle's name or its folder, for its tokenizer (mini)")
    parser.add_argument(
        "--sides",
        type=number(int, 1, 8192),
        nargs="+",
        default=[128, 256],
        metavar="PX",
        help="of the crops: source and target, or one for a translator of upscale 1 (default: 128 256, the paper's)",
    )
    parser.add_argument("--per-shard", type=number(int, 1), default=5000, help="pictures a shard (default: 5000)")
    parser.add_argument("--batch", type=number(int, 1), default=8, help="pictures that the tokenizer does at once (default: 8)")
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the larger crop too, which tuning needs (default: yes)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="goes on where it stopped")
    parser.add_argument("--threads", type=number(int, 1, 1024), help="CPU threads (default: torch's)")
    add_device_options(parser)
    parser.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> int:
    from ..bundle import tokenizer_file
    from ..device import choose_device, choose_dtype
    from ..distributed import rank_and_world
    from ..learn.prepare import PrepareConfig
    from ..learn.prepare import prepare as make
    from .console import bar

    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.tokenizer or tokenizer_file(args.bundle)
    device = choose_device(args.device)
    tokenizer = checkpoint.load_tokenizer(path, device, choose_dtype(device, args.dtype))
    config = PrepareConfig(tuple(args.sides), args.per_shard, args.pictures)
    with bar("prepare") as progress:
        index = make(
            tokenizer,
            storage.sha256(path),
            args.images,
            args.output,
            config,
            args.captions,
            args.batch,
            rank_and_world(),
            progress,
        )
    there = f"{index['count']:,} pictures in {len(index['shards'])} shards, {index['captioned']:,} with captions"
    left_out = f", {index['damaged']} damaged ones left out" if index["damaged"] else ""
    owed = f"; {index['missing']} shards are still with other processes" if index["missing"] else ""
    print(f"{args.output}: {there}{left_out}{owed}")
    return 0


def pretrain(parser: argparse.ArgumentParser) -> None:
    from ..bundle import WEIGHTS
    from ..learn.pretraining import PretrainConfig

    tokenizer_file = WEIGHTS / "mini" / "tokenizer.safetensors"
    parser.add_argument(
        "--tokenizer", type=Path, default=tokenizer_file, metavar="FILE", help="whose tokens to translate (default: that of mini)"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tokens", type=Path, metavar="FOLDER", help="made by `stylerdalle prepare`, instead of --images")
    add_device_options(parser)
    add_run_options(parser, "translator", images=what)
    parser.add_argument(
        "--valid", nargs="+", metavar="PATH", help="with --tokens: pictures that are not in them, to see how it goes"
    )
    add_preset_option(parser)
    add_config_options(parser, PretrainConfig)
    parser.set_defaults(run=run_pretrain)


def run_pretrain(args: argparse.Namespace) -> int:
    from ..device import choose_device, choose_dtype
    from ..learn.prepared import PreparedTokens
    from ..learn.pretraining import PretrainConfig, train
    from ..learn.sources import pictures
    from ..tune.presets import pretrain_options

    if args.valid and not args.tokens:
        raise ValueError("--valid goes with --tokens: of --images some are kept apart anyway, leave it out")
    config = PretrainConfig(**pretrain_options(args.preset, given_options(args, PretrainConfig)))
    train_on: list[Picture] | PreparedTokens
    if args.tokens:
        output = begin(args)
        storage.read_metadata(args.tokenizer)  # is there, and is one of ours
        grids = (config.grid, config.grid * config.upscale)
        train_on = PreparedTokens(args.tokens, storage.sha256(args.tokenizer), grids)
        valid = list(islice(pictures(args.valid), 8)) if args.valid else []
        state = run_of(args, "translator")
    else:
        output, train_on, valid, state = start(args, "translator")
    device = choose_device(args.device)
    tokenizer = checkpoint.load_tokenizer(args.tokenizer, device, choose_dtype(device, args.dtype))
    translator = train(tokenizer, train_on, config, state, valid)
    if not processes().main:
        return 0
    checkpoint.save_translator(output, translator, recipe=recipe(args, config))
    return done(output)


def add_preset_option(parser: argparse.ArgumentParser) -> None:
    from ..tune.presets import NAMES

    parser.add_argument(
        "--preset",
        choices=NAMES,
        metavar="NAME",
        help=f"options by name, those given here win ({', '.join(NAMES)}): the paper's for its two tokenizers, or ours",
    )


def tune(parser: argparse.ArgumentParser) -> None:
    from ..training.amortise import AmortiseConfig
    from ..training.filters import FILTERS
    from ..translator.hypernetwork import HyperConfig
    from ..tune.config import TuneConfig

    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--style", metavar="TEXT", help="the prompt of the new style")
    what.add_argument(
        "--styles",
        type=Path,
        metavar="FILE",
        help="a list of many prompts: learn one network that makes a style of any prompt, not one style",
    )
    parser.add_argument("--name", help="the style's name (default: the output file's)")
    parser.add_argument("--start", metavar="STYLE", help="a style to begin with, by name, prompt or file; of the same --rank")
    parser.add_argument(
        "--pairs",
        metavar="DIR|FILTER",
        help="pairs for --pairs-steps and --pairs-weight: DIR/photos/NAME.jpg and DIR/styled/NAME.jpg, "
        f"or made here by a filter ({', '.join(FILTERS)})",
    )
    parser.add_argument("--pairs-count", type=number(int, 1, 100_000), default=1200, help="crops of them (default: 1200)")
    parser.add_argument(
        "--save-every",
        type=number(float, 0),
        default=30.0,
        metavar="SECONDS",
        help="between saves of the run's state (default: 30)",
    )
    add_run_options(parser, "tune-STYLE")
    add_preset_option(parser)
    add_config_options(parser, TuneConfig)
    own = [field.name for field in fields(TuneConfig)]
    many = parser.add_argument_group(
        "with --styles", "also --steps, --batch, --lr, --seed and --rank, with defaults of their own; nothing else of the above"
    )
    add_config_options(many, AmortiseConfig, own)
    add_config_options(many, HyperConfig, [*own, "embed_dim"])
    add_model_options(parser)
    parser.set_defaults(run=lambda args: run_tune_many(args) if args.styles else run_tune(args))


def run_tune(args: argparse.Namespace) -> int:
    from ..bundle import load_bundle
    from ..learn.pairs import read_pairs
    from ..resolve import check_prompt, find_style, warn_of_unknown_words
    from ..training.filters import FILTERS
    from ..training.pairs import coded_texture, make_pairs
    from ..tune.config import TuneConfig
    from ..tune.loop import TuneState
    from ..tune.loop import tune as learn
    from ..tune.presets import tune_options
    from .console import bar

    prompt = check_prompt(args.style)
    given = tune_options(args.preset, given_options(args, TuneConfig))
    config = TuneConfig.of(given.pop("method", TuneConfig.method), **given)
    output, pictures, _, state = start(args, f"tune-{storage.slug(prompt, 60)}", validate=False)
    bundle = load_bundle(args.bundle, args.device, "fp32")  # gradients; autocast chooses where less is enough
    warn_of_unknown_words(bundle.clip_path, prompt)
    begun = find_style(bundle, args.start) if args.start else None
    with bar(f"tune {prompt!r}") as progress:

        def callback(state: TuneState) -> None:
            progress(state.step, state.steps)

        window = bundle.tokenizer.downsample * bundle.translator.config.grid * bundle.translator.config.upscale
        pairs = texture = None
        if args.pairs in FILTERS:
            pairs = make_pairs(pictures, args.pairs, window, args.pairs_count, config.seed, bundle.tokenizer.downsample)
            texture = coded_texture(bundle.tokenizer, args.pairs)
        elif args.pairs:
            pairs = read_pairs(args.pairs, window, args.pairs_count, config.seed)
        learnt = learn(
            bundle.tokenizer,
            bundle.translator,
            bundle.clip,
            pictures,
            prompt,
            config,
            state,
            pairs,
            callback,
            minutes_between_saves=args.save_every / 60,
            start=begun,
            texture=texture,
        )
    if not processes().main:
        return 0
    made = {"pairs": args.pairs, "pairs_count": args.pairs_count} if args.pairs else {}
    made |= {"start": begun.name} if begun else {}
    style = replace(learnt.style, name=args.name or output.stem, base_sha256=storage.sha256(bundle.translator_path))
    checkpoint.save_style(output, style, recipe={**recipe(args, config), **made}, **learnt.notes())
    print(
        f"held-out score {learnt.held_out[0]:.3f} at the start, {learnt.held_out[1]:.3f} at step {learnt.best_step} "
        f"of {learnt.steps}, which is kept"
    )
    return done(output)


def run_tune_many(args: argparse.Namespace) -> int:
    from ..bundle import load_bundle
    from ..resolve import list_styles
    from ..training.amortise import AmortiseConfig, amortise
    from ..training.prompts import read_prompts
    from ..training.styles import large_photos
    from ..translator.hypernetwork import HyperConfig
    from ..tune.config import TuneConfig
    from .console import bar

    if args.preset:
        raise ValueError("--preset cannot be used with --styles: leave it out")
    own, hyper = given_options(args, AmortiseConfig), given_options(args, HyperConfig)
    if lost := [name for name in given_options(args, TuneConfig) if name not in own and name not in hyper]:
        options = ", ".join("--" + name.replace("_", "-") for name in lost)
        raise ValueError(f"{options} cannot be used with --styles: leave it out")
    prompts = read_prompts(args.styles)
    output, pictures, _, state = start(args, f"tune-{args.styles.stem}")
    bundle = load_bundle(args.bundle, args.device, "fp32")
    photos, art = ([p for p in pictures if (p.kind in ("art", "graphic")) == is_art] for is_art in (False, True))
    config = AmortiseConfig(**own)
    width = bundle.clip.text_projection.shape[1]
    with bar(f"tune {len(prompts)} prompts") as progress:
        network = amortise(
            bundle.tokenizer,
            bundle.translator,
            bundle.clip,
            large_photos(photos) + photos[::20],
            art,
            prompts,
            config,
            HyperConfig(**{"embed_dim": width, **hyper}),
            state,
            list_styles(bundle),
            lambda step, _: progress(step, config.steps),
        )
    if not processes().main:
        return 0
    checkpoint.save_hypernetwork(output, network, bundle.translator_path, bundle.clip_path, recipe=recipe(args, config))
    return done(output)


def start(args: argparse.Namespace, name: str, validate: bool = True) -> tuple[Path, list[Picture], list[Picture], Run]:
    """What every training begins with: (output, pictures to train on, pictures to validate on, run)."""
    output = begin(args)
    train, valid = split(read_pictures(args.images)) if validate else (read_pictures(args.images), [])
    if validate and (len(train) + len(valid) < FEWEST or not valid):
        raise ValueError(f"{len(train) + len(valid)} pictures are too few to keep some for validation: give {FEWEST} or more")
    return output, train, valid, run_of(args, name)


def begin(args: argparse.Namespace) -> Path:
    """The output, checked before any picture is read."""
    logging.getLogger("stylerdalle").setLevel(logging.INFO)  # the lines that say how it goes
    if args.threads:
        torch.set_num_threads(args.threads)
    return check_output(args.output, args.overwrite, (".safetensors",))


def run_of(args: argparse.Namespace, name: str) -> Run:
    return Run((args.run_dir or RUNS / name).expanduser(), args.resume)


def recipe(args: argparse.Namespace, config: Any) -> dict[str, Any]:
    """How a file was made, for its metadata."""
    preset = {"preset": args.preset} if getattr(args, "preset", None) else {}
    options = asdict(config)
    if options.get("epochs"):
        options.pop("steps")  # are those of the epochs
    return {"command": args.command, **preset, **options}


def done(output: Path) -> int:
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0
