"""What the commands that train share: each checks its output first, resumes from its run folder and writes one model file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import storage
from ..bundle import Bundle
from ..images.files import check_output
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run, pictures_sha256
from ..learn.sources import checked, read_pictures
from .console import say
from .options import RUNS

FEWEST = 100  # pictures: one in a hundred is kept for validation


def check_start(args: argparse.Namespace, *inputs: str | Path | None) -> Path:
    """Turn on the log and set the threads -> the output, which is checked before any picture is read.

    Args:
        inputs: files that the command reads beside --images, which the output must not replace.
    """
    logging.getLogger("stylerdalle").setLevel(logging.INFO)  # trainings log their progress
    if args.threads:
        torch.set_num_threads(args.threads)
    return check_output(
        args.output, args.overwrite, (".safetensors",), [*(args.images or []), *(path for path in inputs if path)]
    )


def read_split(paths: Sequence[str]) -> tuple[list[Picture], list[Picture]]:
    """(pictures to train on, pictures to validate on). Raises ValueError where they are too few for that."""
    train, valid = split_validation(checked(read_pictures(paths)))
    count = len(train) + len(valid)
    if count < FEWEST or not valid:
        raise ValueError(f"{count} pictures are too few to keep some for validation: give {FEWEST} or more")
    return train, valid


def open_run(args: argparse.Namespace, name: str, pictures: Sequence[Picture] = (), **inputs: str | Path) -> Run:
    """The run in --run-dir, or in the default folder of this name.

    Args:
        pictures: that the run learns from.
        inputs: what else shapes it, by name: a file, or a hash.
    """
    hashes = {what: storage.sha256(of) if isinstance(of, Path) else of for what, of in inputs.items()}
    return Run((args.run_dir or RUNS / name).expanduser(), args.resume, {"pictures": pictures_sha256(pictures), **hashes})


def bundle_inputs(bundle: Bundle) -> dict[str, str | Path]:
    """The model files of a bundle that a run learns with, for `open_run`."""
    return {"tokenizer": bundle.tokenizer_path, "translator": bundle.translator_path, "clip": bundle.clip_path}


def recipe(args: argparse.Namespace, config: Any) -> dict[str, Any]:
    """How a file was made, for its metadata: the command, the preset and the options."""
    preset = vars(args).get("preset")
    options = asdict(config)
    if options.get("epochs"):
        options.pop("steps")  # not used: the epochs decide
    return {"command": args.command, **({"preset": preset} if preset else {}), **options}


def final_output(args: argparse.Namespace, output: Path) -> Path:
    """Where the result goes: the output, or the next free name if another run has written it since `check_start`."""
    return output if args.overwrite else storage.next_free(output)


def print_output(output: Path) -> int:
    """Print the name and size of the file that was written -> exit code 0."""
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0
