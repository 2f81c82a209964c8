"""Options made from a config dataclass."""

from dataclasses import dataclass

import pytest

from stylerdalle.cli.options import Parser, add_config_options, given_options
from stylerdalle.settings import setting


@dataclass(frozen=True)
class Config:
    steps: int = setting(10, "of training; 100 % of them")
    lr: float = 1e-3
    method: str = "direct"
    compile: bool = setting(False, "slower to start")
    zoom: tuple[float, float] = (1.0, 2.0)  # not an option


def parser() -> Parser:
    out = Parser("test")
    add_config_options(out, Config)
    return out


def test_what_is_not_given_is_not_there():
    assert given_options(parser().parse_args([]), Config) == {}


def test_each_field_of_a_simple_type_is_an_option():
    args = parser().parse_args(["--steps", "3", "--lr", "0.5", "--method", "other", "--compile"])
    assert given_options(args, Config) == {"steps": 3, "lr": 0.5, "method": "other", "compile": True}
    with pytest.raises(SystemExit):
        parser().parse_args(["--zoom", "1"])


def test_the_help_is_the_fields_own():
    text = parser().format_help()
    assert "of training; 100 % of them (default: 10)" in " ".join(text.split())
    assert "slower to start" in text


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--step", "3"])
    assert "test: " in capsys.readouterr().err
