"""Textures: tiles of marks that wrap around, and filters that lay their marks where the tile has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stylerdalle.training import filters
from stylerdalle.training.filters.textures import SIDE, TEXTURES, guide, lay, marks_of, plain


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    """A plain brown wall with room for marks of every kind."""
    return np.full((160, 160, 3), (120, 90, 70), np.uint8)


@pytest.mark.parametrize("name", [name for name in TEXTURES if name != "art_nouveau"])
def test_a_plain_wall_gets_the_marks_of_the_place_it_lies_at(name, wall):
    here, there = (filters.apply(name, wall, np.random.default_rng(0), place).astype(int) for place in ((0, 0), (24, 40)))
    assert np.ptp(here, axis=(0, 1)).max() > 12, "no marks"
    inner = slice(40, 100)  # the same part of the tile, far from the picture's edges
    assert np.abs(here[64:124, 80:140] - there[inner, inner]).max() <= 2


def test_the_ornament_is_for_light_grounds():
    dark, light = (filters.apply("art_nouveau", np.full((160, 160, 3), v, np.uint8), np.random.default_rng(0)) for v in (60, 240))
    assert np.ptp(dark.astype(int), axis=(0, 1)).max() < 12 < np.ptp(light.astype(int), axis=(0, 1)).max()


@pytest.mark.parametrize("name", TEXTURES)
def test_a_tile_repeats_without_a_seam(name):
    """Across its edge a tile changes no more than it does at any other place."""
    shown = guide(marks_of(name))  # (3, SIDE, SIDE)
    assert shown.shape == (3, SIDE, SIDE)
    for planes in (shown, shown.transpose(1, 2)):
        steps = (planes - planes.roll(1, 1)).abs().mean((0, 2))  # (SIDE), between neighbouring rows; the first is across the edge
        assert steps[0] <= 1.25 * steps.max().clamp_min(1e-3) and steps[0] < 3 * steps.mean().clamp_min(1e-3)


def test_the_part_under_a_picture_wraps_around():
    marks = marks_of("stained_glass")
    part = marks.at((SIDE - 8, 16), (24, 20))
    assert torch.equal(part.line[8:], marks.line[:16, 16:36]) and torch.equal(part.tint[:, :8], marks.tint[:, -8:, 16:36])


def test_marks_keep_to_their_side_of_a_contour():
    colours = torch.zeros(3, 8, 8)
    colours[:, :, 4:] = 1
    marks = replace(plain((8, 8)), dx=torch.full((8, 8), 4.0))  # every pixel's mark has its middle 4 px to the right
    assert torch.equal(lay(colours, marks, 0.5), colours)
    assert lay(colours, marks, 9.0)[:, :, 0].min() == 1


def test_a_filter_without_marks_has_no_texture():
    assert filters.texture("pixel_art") is None
    shown = filters.texture("van_gogh")
    assert shown.shape == (SIDE, SIDE, 3) and shown.dtype == np.uint8 and np.ptp(shown) > 100
