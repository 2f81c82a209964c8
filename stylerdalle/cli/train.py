"""Commands that train the small models of a bundle: train-tokenizer, train-clip."""

from __future__ import annotations

import argparse

from .. import checkpoint
from ..device import choose_device
from ..training import clip, tokenizer
from .options import add_config_options, add_device_option, add_run_options, given_options
from .training import check_start, final_output, open_run, print_output, read_split, recipe


def train_tokenizer_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser, "tokenizer")
    add_device_option(parser)
    add_config_options(parser.add_argument_group("training"), tokenizer.TokenizerConfig)
    parser.set_defaults(run=run_train_tokenizer)


def run_train_tokenizer(args: argparse.Namespace) -> int:
    output = check_start(args)
    train_on, valid = read_split(args.images)
    config = tokenizer.TokenizerConfig(**given_options(args, tokenizer.TokenizerConfig))
    run = open_run(args, "tokenizer", train_on)
    model = tokenizer.train(train_on, valid, config, run, device=choose_device(args.device))
    output = final_output(args, output)
    checkpoint.save_tokenizer(output, model, recipe=recipe(args, config))
    return print_output(output)


def train_clip_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser, "clip")
    add_config_options(parser.add_argument_group("training"), clip.ClipConfig)
    parser.set_defaults(run=run_train_clip)


def run_train_clip(args: argparse.Namespace) -> int:
    output = check_start(args)
    train_on, valid = read_split(args.images)
    config = clip.ClipConfig(**given_options(args, clip.ClipConfig))
    model = clip.train(train_on, valid, config, open_run(args, "clip", train_on))
    used, words = clip.used_tokens(train_on), " ".join(clip.words(train_on))
    output = final_output(args, output)
    checkpoint.save_clip(output, model, used=used, recipe=recipe(args, config), words=words)
    return print_output(output)
