"""Options made from a config dataclass."""

from dataclasses import dataclass

import pytest

from stylerdalle.options import Parser, add_config_options, config_from


@dataclass(frozen=True)
class Config:
    steps: int = 10  # of training; 100 % of them
    lr: float = 1e-3
    method: str = "direct"
    compile: bool = False  # slower to start
    zoom: tuple[float, float] = (1.0, 2.0)  # not an option


def parser() -> Parser:
    out = Parser("test")
    add_config_options(out, Config)
    return out


def test_without_options_the_config_is_the_default_one():
    assert config_from(parser().parse_args([]), Config) == Config()


def test_each_field_of_a_simple_type_is_an_option():
    args = parser().parse_args(["--steps", "3", "--lr", "0.5", "--method", "other", "--compile"])
    assert config_from(args, Config) == Config(3, 0.5, "other", True)
    with pytest.raises(SystemExit):
        parser().parse_args(["--zoom", "1"])


def test_the_help_is_the_fields_comment():
    text = parser().format_help()
    assert "of training; 100 % of them (default: 10)" in " ".join(text.split())
    assert "slower to start" in text


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--step", "3"])
    assert "test: " in capsys.readouterr().err
