"""Tones: colours and light laid over a picture."""

import pytest
import torch

from stylerdalle.training.filters.tones import TONES, tone


@pytest.mark.parametrize("name", TONES)
def test_a_tone_changes_colours_and_keeps_shape_and_range(name):
    images = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    out = tone(name, images)
    assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1
    assert (out - images).abs().mean() > 0.03


@pytest.mark.parametrize(("name", "channel"), [("red", 0), ("green", 1), ("blue", 2), ("night", 2), ("golden", 0)])
def test_a_colour_comes_out_strongest(name, channel):
    grey = torch.full((1, 3, 4, 4), 0.5)
    assert tone(name, grey).mean((0, 2, 3)).argmax() == channel


@pytest.mark.parametrize("name", ["dark", "night", "negative"])
def test_light_parts_become_darker(name):
    assert tone(name, torch.full((1, 3, 4, 4), 0.8)).mean() < 0.6


def test_an_unknown_tone_is_refused():
    with pytest.raises(ValueError, match="unknown tone 'loud'; choose one of: .*sepia"):
        tone("loud", torch.rand(1, 3, 4, 4))
