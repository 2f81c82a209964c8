"""What the commands that train share: each checks its output first, resumes from its run folder and writes one model file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..images.files import check_output
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.sources import read_pictures
from ..tune import presets
from .options import RUNS

FEWEST = 100  # pictures: one in a hundred is kept for validation


def add_preset_option(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(presets.NAMES)
    parser.add_argument(
        "--preset",
        choices=presets.NAMES,
        metavar="NAME",
        help=f"a set of options ({names}): the paper's for its two tokenizers, or ours; options given here override it",
    )


def check_start(args: argparse.Namespace) -> Path:
    """Turn on the log and set the threads -> the output, which is checked before any picture is read."""
    logging.getLogger("stylerdalle").setLevel(logging.INFO)  # trainings log their progress
    if args.threads:
        torch.set_num_threads(args.threads)
    return check_output(args.output, args.overwrite, (".safetensors",))


def read_split(paths: Sequence[str]) -> tuple[list[Picture], list[Picture]]:
    """(pictures to train on, pictures to validate on). Raises ValueError where they are too few for that."""
    train, valid = split_validation(read_pictures(paths))
    count = len(train) + len(valid)
    if count < FEWEST or not valid:
        raise ValueError(f"{count} pictures are too few to keep some for validation: give {FEWEST} or more")
    return train, valid


def open_run(args: argparse.Namespace, name: str) -> Run:
    """The run in --run-dir, or in the default folder of this name."""
    return Run((args.run_dir or RUNS / name).expanduser(), args.resume)


def recipe(args: argparse.Namespace, config: Any) -> dict[str, Any]:
    """How a file was made, for its metadata: the command, the preset and the options."""
    preset = vars(args).get("preset")
    options = asdict(config)
    if options.get("epochs"):
        options.pop("steps")  # not used: the epochs decide
    return {"command": args.command, **({"preset": preset} if preset else {}), **options}


def print_output(output: Path) -> int:
    """Print the name and size of the file that was written -> exit code 0."""
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0
