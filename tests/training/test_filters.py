"""Filters: what the training pairs rely on."""

import numpy as np
import pytest

from stylerdalle.training.registry import FILTERED, find

NAMES = list(FILTERED)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A dark disc on a coloured ramp with sides that are no multiple of a block, (61, 83, 3)."""
    y, x = np.mgrid[:61, :83]
    ramp = np.stack([x * 3, y * 4, 255 - x * 2], axis=2)
    ramp[(y - 30) ** 2 + (x - 40) ** 2 < 300] = (60, 20, 40)
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_keeps_size_and_type_changes_the_picture_and_leaves_its_input_alone(name, picture):
    before = picture.copy()
    out = find(name).apply(picture, np.random.default_rng(0))
    assert out.shape == picture.shape and out.dtype == np.uint8
    assert np.array_equal(picture, before)
    assert np.abs(out.astype(int) - picture).mean() > 4


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_picture(name, picture):
    first, second = (find(name).apply(picture, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 45, 3)])
@pytest.mark.parametrize("value", [0, 255])
def test_the_smallest_and_the_plainest_pictures_are_filtered(name, shape, value):
    out = find(name).apply(np.full(shape, value, np.uint8), np.random.default_rng(0))
    assert out.shape == shape


@pytest.mark.parametrize(("name", "block"), [("pixel-art", 8), ("pixel-art-4", 4)])
def test_pixel_art_is_made_of_constant_blocks_of_few_colours(name, block, picture):
    out = find(name).apply(picture, np.random.default_rng(0))
    corners = out[::block, ::block].repeat(block, 0).repeat(block, 1)[: out.shape[0], : out.shape[1]]
    assert np.array_equal(out, corners)
    assert 4 <= len(np.unique(out.reshape(-1, 3), axis=0)) <= 24


@pytest.mark.parametrize("name", ["pencil-sketch", "charcoal", "ink"])
def test_drawings_are_grey_on_light_paper_with_dark_lines(name, picture):
    out = find(name).apply(picture, np.random.default_rng(0)).astype(int)
    assert np.ptp(out, axis=2).max() <= 12
    assert out.max() > 225 and out.min() < 90


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((15, 64, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
    ],
)
def test_a_picture_of_the_wrong_kind_is_refused_with_what_it_is(wrong):
    with pytest.raises(ValueError, match=r"must be.*\("):
        find("ink").apply(wrong, np.random.default_rng(0))
