"""Patterns: marks on squares that wrap around, and filters that lay their marks where the pattern has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stylerdalle.training.filters.marks import PATTERN_SIDE, guide, lay, plain
from stylerdalle.training.filters.patterns import Halftone
from stylerdalle.training.registry import STYLES, find

PATTERNED = [name for name, recipe in STYLES.items() if recipe.pattern]


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    """A plain brown wall with room for marks of every kind."""
    return np.full((160, 160, 3), (120, 90, 70), np.uint8)


@pytest.mark.parametrize("name", [name for name in PATTERNED if name != "art-nouveau"])
def test_a_plain_wall_gets_the_marks_of_the_place_it_lies_at(name, wall):
    here, there = (find(name).apply(wall, np.random.default_rng(0), place).astype(int) for place in ((0, 0), (24, 40)))
    assert np.ptp(here, axis=(0, 1)).max() > 12, "no marks"
    inner = slice(40, 100)  # the same part of the pattern, far from the picture's edges
    assert np.abs(here[64:124, 80:140] - there[inner, inner]).max() <= 2


def test_the_ornament_is_for_light_grounds():
    dark, light = (find("art-nouveau").apply(np.full((160, 160, 3), v, np.uint8), np.random.default_rng(0)) for v in (60, 240))
    assert np.ptp(dark.astype(int), axis=(0, 1)).max() < 12 < np.ptp(light.astype(int), axis=(0, 1)).max()


@pytest.mark.parametrize("name", PATTERNED)
def test_a_pattern_repeats_without_a_seam(name):
    """Across its edge a pattern changes no more than it does at any other place."""
    shown = guide(find(name).marks)  # (3, PATTERN_SIDE, PATTERN_SIDE)
    assert shown.shape == (3, PATTERN_SIDE, PATTERN_SIDE)
    for planes in (shown, shown.transpose(1, 2)):
        steps = (planes - planes.roll(1, 1)).abs().mean((0, 2))  # between neighbouring rows; the first is across the edge
        assert steps[0] <= 1.25 * steps.max().clamp_min(1e-3) and steps[0] < 3 * steps.mean().clamp_min(1e-3)


def test_the_part_under_a_picture_wraps_around():
    marks = find("stained-glass").marks
    part = marks.at((PATTERN_SIDE - 8, 16), (24, 20))
    assert torch.equal(part.line[8:], marks.line[:16, 16:36]) and torch.equal(part.tint[:, :8], marks.tint[:, -8:, 16:36])


def test_marks_keep_to_their_side_of_a_contour():
    colours = torch.zeros(3, 8, 8)
    colours[:, :, 4:] = 1
    marks = replace(plain((8, 8)), dx=torch.full((8, 8), 4.0))  # every pixel's mark has its middle 4 px to the right
    assert torch.equal(lay(colours, marks, 0.5), colours)
    assert lay(colours, marks, 9.0)[:, :, 0].min() == 1


def test_a_pattern_is_shown_as_a_picture_and_a_style_without_one_has_none():
    assert find("pixel-art").picture() is None
    shown = find("van-gogh").picture()
    assert shown.shape == (PATTERN_SIDE, PATTERN_SIDE, 3) and shown.dtype == np.uint8 and np.ptp(shown) > 100


def test_a_halftone_that_would_leave_a_seam_is_refused():
    with pytest.raises(ValueError, match="period 12 leaves a seam: it must divide 512"):
        Halftone(12)
