"""The command line: `stylerdalle COMMAND --help`.

Exit codes: 0 everything asked for was done; 2 bad input, said in one sentence on stderr; 1 anything else that failed;
130 interrupted. `--debug` shows tracebacks and the log.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from ..distributed import leave, processes, rank_and_world
from .console import SEVERAL, report, unexpected
from .options import Parser

# command: (what it does, where its options are set up); a command's module is imported when the command is used
COMMANDS = {
    "stylize": ("photos to pictures in a style", "stylize:stylize"),
    "styles": ("list the styles of a bundle", "inspect:styles"),
    "info": ("what a model file holds", "inspect:info"),
    "score": ("how well pictures match a text, by CLIP", "inspect:score"),
    "evaluate": ("the paper's metric: how well held-out photos match a style once stylised", "evaluate:evaluate"),
    "reconstruct": ("a photo through the tokenizer and back", "inspect:reconstruct"),
    "queue": ("a folder of photos through a workflow on one or several ComfyUI servers", "queue:queue"),
    "tune": ("learn a new style from photos and a prompt", "training:tune"),
    "prepare": ("pictures to shards of tokens and captions, for pretraining on many", "training:prepare"),
    "pretrain": ("train a translator from pictures alone", "training:pretrain"),
    "train-tokenizer": ("train a small image tokenizer", "training:train_tokenizer"),
    "train-clip": ("train a small CLIP on captioned pictures", "training:train_clip"),
    "fetch": ("download official weights and convert them", "convert:fetch"),
    "convert": ("foreign weights to a model file of ours", "convert:convert_file"),
}
log = logging.getLogger(__name__)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only `command` gets its options, so that nothing else is imported."""
    from .. import __version__

    parser = Parser(prog="stylerdalle", description="Language-guided style transfer by translating the tokens of a picture.")
    parser.add_argument("--version", action="version", version=f"stylerdalle {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and the log")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (text, place) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            module, function = place.split(":")
            getattr(importlib.import_module(f".{module}", __package__), function)(sub)
            sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks and the log")
            sub.set_defaults(command=name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command -> the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(words)
    except SystemExit as stop:  # --help, --version and errors of the options
        return int(stop.code or 0)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO if args.debug else logging.WARNING, force=True)
    rank, world = rank_and_world()
    if rank and SEVERAL.get(args.command, True):
        logging.disable(logging.WARNING)  # the main process says the same
    try:
        if world > 1:
            if args.command not in SEVERAL:
                raise ValueError(f"{args.command} is for one process, and {world} were started: start it without a launcher")
            if SEVERAL[args.command]:
                processes()
        code = int(args.run(args))
        sys.stdout.flush()
        leave()
        return code
    except KeyboardInterrupt:
        report(args.command, "interrupted", "\n")
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say at exit
        return 1
    except Exception as error:  # the last place that can turn an error into a sentence
        if args.debug:
            raise
        bad_input = isinstance(error, (ValueError, OSError))
        report(args.command, error if bad_input else unexpected(error))
        return 2 if bad_input else 1


if __name__ == "__main__":
    sys.exit(main())
