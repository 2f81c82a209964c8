"""The entry point: `stylerdalle COMMAND ...`.

Exit codes: 0 everything asked for was done; 2 bad input, explained in one line on stderr; 1 any other failure; 130 interrupted.
`--debug` shows tracebacks and the log.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..distributed import end, leave, processes, rank_and_world
from .console import SEVERAL, report, set_up_output, unexpected
from .options import Parser

# command: (what it does, the function that sets up its options); a command's module is imported when the command is used
COMMANDS = {
    "stylize": ("paint photos in a style", "stylize:stylize_options"),
    "styles": ("list the styles of a bundle", "inspect:styles_options"),
    "info": ("show what a model file holds", "inspect:info_options"),
    "score": ("measure with CLIP how well pictures match a text", "score:score_options"),
    "evaluate": ("measure how well photos match a style once stylised, by the paper's metric", "score:evaluate_options"),
    "reconstruct": ("encode a photo with the tokenizer and decode it again", "stylize:reconstruct_options"),
    "queue": ("run a folder of photos through a workflow on ComfyUI servers", "queue:queue_options"),
    "tune": ("learn a new style from photos and a prompt", "tune:tune_options"),
    "prepare": ("turn pictures into shards of tokens, for pretraining on large collections", "pretrain:prepare_options"),
    "pretrain": ("train a translator from pictures alone", "pretrain:pretrain_options"),
    "train-tokenizer": ("train a small image tokenizer", "train:train_tokenizer_options"),
    "train-clip": ("train a small CLIP on captioned pictures", "train:train_clip_options"),
    "fetch": ("download official weights and convert them", "weights:fetch_options"),
    "convert": ("convert foreign weights to a StylerDALLE model file", "weights:convert_options"),
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser. Only `command` gets its options, so that no other command's module is imported."""
    from .. import __version__

    parser = Parser(prog="stylerdalle", description="Language-guided style transfer by translating the tokens of a picture.")
    parser.add_argument("--version", action="version", version=f"stylerdalle {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and the log")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (text, place) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            module, function = place.split(":")
            add_options = getattr(importlib.import_module(f".{module}", __package__), function)
            add_options(sub)
            sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks and the log")
            sub.set_defaults(command=name, parser=sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command -> the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        rank_and_world()
    except ValueError as error:  # before anything is printed: which process prints depends on it
        print(f"stylerdalle: {error}", file=sys.stderr)
        return 2
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(words)
    except SystemExit as stop:  # --help, --version, wrong options
        return int(stop.code or 0)
    set_up_output(logging.INFO if args.debug else logging.WARNING)
    try:
        return run(args)
    except KeyboardInterrupt:
        report(args.command, "interrupted", "\n")
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing stdout at exit would raise again
        return 1
    except Exception as error:  # the last place that can turn an error into one line
        if args.debug:
            raise
        bad_input = isinstance(error, (ValueError, OSError))
        report(args.command, error if bad_input else unexpected(error))
        return 2 if bad_input else 1


def run(args: argparse.Namespace) -> int:
    """Run a command in this process, which may be one of several -> the exit code."""
    rank, world = rank_and_world()
    if rank and SEVERAL.get(args.command, True):
        logging.disable(logging.WARNING)  # the main process logs the same
    if world > 1:
        if args.command not in SEVERAL:
            raise ValueError(f"{args.command} is for one process, and {world} were started: start it without a launcher")
        if SEVERAL[args.command]:
            processes()
    code = int(args.run(args))
    sys.stdout.flush()
    leave()
    return code


def entry() -> NoReturn:
    """The installed command: run, then end the process."""
    end(main())


if __name__ == "__main__":
    entry()
