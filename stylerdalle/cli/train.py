"""Commands that train the small models of a bundle: train-tokenizer, train-clip."""

from __future__ import annotations

import argparse

from ..training.options import ClipConfig, TokenizerConfig
from .options import add_config_options, add_device_option, add_run_options, given_options


def train_tokenizer_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser, "tokenizer")
    add_device_option(parser)
    add_config_options(parser.add_argument_group("training"), TokenizerConfig)
    parser.set_defaults(run=run_train_tokenizer)


def run_train_tokenizer(args: argparse.Namespace) -> int:
    from .. import checkpoint
    from ..device import choose_device
    from ..training import tokenizer
    from .training import check_start, final_output, open_run, print_output, read_split, recipe

    output = check_start(args)
    train_on, valid = read_split(args.images)
    config = TokenizerConfig(**given_options(args, TokenizerConfig))
    run = open_run(args, "tokenizer", train_on)
    model = tokenizer.train(train_on, valid, config, run, device=choose_device(args.device))
    output = final_output(args, output)
    checkpoint.save_tokenizer(output, model, recipe=recipe(args, config))
    return print_output(output)


def train_clip_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser, "clip")
    add_device_option(parser)
    add_config_options(parser.add_argument_group("training"), ClipConfig)
    parser.set_defaults(run=run_train_clip)


def run_train_clip(args: argparse.Namespace) -> int:
    from .. import checkpoint
    from ..device import choose_device
    from ..training import clip
    from .training import check_start, final_output, open_run, print_output, read_split, recipe

    output = check_start(args)
    train_on, valid = read_split(args.images)
    config = ClipConfig(**given_options(args, ClipConfig))
    model = clip.train(train_on, valid, config, open_run(args, "clip", train_on), device=choose_device(args.device))
    used, words = clip.used_tokens(train_on), " ".join(clip.words(train_on))
    output = final_output(args, output)
    checkpoint.save_clip(output, model, used=used, recipe=recipe(args, config), words=words)
    return print_output(output)
