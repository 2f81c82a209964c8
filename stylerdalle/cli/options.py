"""Options that several commands share, and options made from a config dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..distributed import rank_and_world
from ..settings import SEEDS, SOFTNESS, did_you_mean
from .console import printable

C = TypeVar("C")
OPTION_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
METAVARS = {int: "N", float: "F", str: "NAME"}
RUNS = Path("~/.cache/stylerdalle/runs")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line. Options cannot be abbreviated: a new option would break scripts that do."""

    def __init__(self, prog: str | None = None, description: str | None = None) -> None:
        super().__init__(prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> Any:
        words = re.findall(r"(?<=arguments: )--[\w-]+|(?<=invalid choice: ')[^']+", message)
        known = [*self._option_string_actions, *(name for action in self._actions for name in action.choices or ())]
        hint = next(filter(None, (did_you_mean(word, known) for word in words)), "")
        self.exit(2, f"{self.prog}: {printable(message)}{hint} (try {self.prog} --help)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of ArgumentParser; options that are not known are reported by the command's own parser, which knows its options."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(found, "parser", self).error(f"unrecognized arguments: {' '.join(unknown)}")
        return found

    def _print_message(self, message: str, file: Any = None) -> None:
        if rank_and_world()[0] == 0:  # every process of a run has the same arguments
            super()._print_message(message, file)


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """A `type` for add_argument: an int or float from `low` to `high`."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from error
        if not low <= value <= high or not math.isfinite(value):
            limits = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more" if low > -math.inf else "any finite number"
            raise argparse.ArgumentTypeError(f"{text} is out of range: {limits}")
        return value

    return read


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", default="mini", metavar="NAME", help="a bundle's name, or its folder (default: mini)")
    add_device_options(parser)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    add_device_option(parser)
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help="precision of the models (default: auto)"
    )


def add_softness_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--softness",
        type=number(float, 0, 10),
        default=SOFTNESS,
        metavar="F",
        help=f"0 decodes one token per place, as the paper does; higher values mix the likely tokens (default: {SOFTNESS})",
    )


def add_seed_option(parser: argparse._ActionsContainer, text: str) -> None:
    parser.add_argument("--seed", type=number(int, 0, SEEDS - 1), default=0, metavar="N", help=f"{text} (default: 0)")


def add_run_options(parser: argparse.ArgumentParser, name: str, images: argparse._ActionsContainer | None = None) -> None:
    """Options of every command that trains: pictures in, one file out, a run folder that can be resumed.

    Args:
        name: of the default run folder.
        images: a required group of inputs that exclude each other, to which --images is added.
    """
    (images or parser).add_argument(
        "--images", nargs="+", required=images is None, metavar="PATH", help="pictures, folders of them, or .tar shards"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help=f"folder for the run's state and curve (default: {RUNS / name})"
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue from the state in the run's folder (default: yes)",
    )
    add_threads_option(parser)


def add_preset_option(parser: argparse.ArgumentParser) -> None:
    from ..tune.presets import NAMES

    names = ", ".join(NAMES)
    parser.add_argument(
        "--preset",
        choices=NAMES,
        metavar="NAME",
        help=f"a set of options ({names}): the paper's for its two tokenizers, or ours; options given here override it",
    )


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=number(int, 1, 1024), metavar="N", help="CPU threads (default: torch's own)")


def add_config_options(parser: argparse._ActionsContainer, config: type, skip: Sequence[str] = ()) -> None:
    """One option per int, float, str and bool field of a config dataclass, with the field's help (settings.py).

    Options that are not given are absent from the namespace, see `given_options`.
    """
    for field in _fields(config, skip):
        kind = OPTION_TYPES[_type_name(field)]
        note = field.metadata.get("help", "").replace("%", "%%")
        text = f"{note} (default: {_shown(field.default)})".lstrip()
        option = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            read = number(kind, -math.inf) if kind in (int, float) else kind  # refuses NaN and infinity
            parser.add_argument(option, type=read, default=argparse.SUPPRESS, help=text, metavar=METAVARS[kind])


def given_options(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The config options that were given, by field name."""
    return {field.name: getattr(args, field.name) for field in _fields(config, ()) if hasattr(args, field.name)}


def _fields(config: type, skip: Sequence[str]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(config) if _type_name(field) in OPTION_TYPES and field.name not in skip]


def _shown(default: Any) -> str:
    """A default value in a help text."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _type_name(field: dataclasses.Field[Any]) -> str:
    """The name of a field's type, which is a string under `from __future__ import annotations` and else a class."""
    return field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
