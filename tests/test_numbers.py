"""NaN, infinity and numbers out of range, in every input that takes a number."""

import json
import math

import pytest
import torch

import stylerdalle
from stylerdalle.cli.main import main
from stylerdalle.learn.pretraining import PretrainConfig
from stylerdalle.queue.policy import Policy
from stylerdalle.queue.workflow import parsed
from stylerdalle.translator.options import TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.tune.config import TuneConfig

NOT_NUMBERS = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("name", ["temperature", "top_p", "softness"])
def test_sampling_refuses_what_is_no_number(name, value):
    with pytest.raises(ValueError, match=f"{name} "):
        Sampling(**{name: value})


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 2**64}, {"top_k": -1}, {"top_p": 0.0}, {"temperature": -1.0}])
def test_sampling_refuses_what_is_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampling(**options)


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("name", ["strength", "feather", "steady"])
def test_a_translation_refuses_what_is_no_number(name, value):
    with pytest.raises(ValueError, match=f"{name} "):
        TranslateOptions(**{name: value})


def test_pictures_and_masks_with_nan_are_refused(bundle):
    picture = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="mask has NaN"):
        stylerdalle.stylize(picture, "ukiyo-e", bundle, mask=torch.full((1, 32, 32), math.nan))
    picture[0, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite pixels"):
        stylerdalle.stylize(picture, "ukiyo-e", bundle)


@pytest.mark.parametrize("config", [TuneConfig, PretrainConfig, Policy])
@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_every_float_of_a_config_refuses_what_is_no_number(config, value):
    names = [name for name, default in vars(config()).items() if isinstance(default, float)]
    assert names
    for name in names:
        with pytest.raises(ValueError, match=name):
            config(**{name: value})


@pytest.mark.parametrize("words", [["tune", "--kl-weight", "nan"], ["queue", "--wait", "inf"], ["tune", "--save-every", "inf"]])
def test_the_command_line_refuses_what_is_no_number(words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert words[1] in error and "out of range" in error


def test_values_for_a_server_are_json_numbers_or_texts():
    for text in ("NaN", "Infinity", "1e999", "-1e999"):
        assert parsed(text) == text
        json.dumps(parsed(text), allow_nan=False)
    assert parsed("[1.5, 1e3]") == [1.5, 1000.0]
