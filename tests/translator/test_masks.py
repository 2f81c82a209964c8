"""Masks at the places of tokens, with soft edges."""

import pytest
import torch

from stylerdalle.translator.masks import feathered, on_grid


def half(height: int, width: int) -> torch.Tensor:
    """Black on the left, white on the right."""
    return (torch.arange(width) >= width // 2).float().expand(1, height, width)


def test_a_mask_is_averaged_over_each_place_and_clamped():
    mask = torch.zeros(1, 16, 16)
    mask[:, :8, :4] = 3
    assert torch.equal(on_grid(mask, (2, 2)), torch.tensor([[[0.5, 0], [0, 0]]]))


def test_feathering_makes_a_smooth_ramp_of_that_many_pixels_to_either_side():
    soft = feathered(half(20, 200), 0, 30)
    line = soft[0, 10]
    assert torch.equal(soft, line.expand_as(soft))
    assert line[:70].abs().max() < 1e-6 and (line[130:] - 1).abs().max() < 1e-6
    assert (line.diff() >= -1e-6).all() and line[100] == pytest.approx(0.5, abs=0.02)
    assert 0.1 < line[85] < 0.15  # of a ramp with soft ends: a straight one would be at 0.25
    assert torch.allclose(feathered(half(20, 200).transpose(1, 2), 30, 0), soft.transpose(1, 2), atol=1e-6)


def test_an_even_mask_stays_as_it_is():
    mask = torch.full((1, 40, 50), 0.3)
    assert torch.allclose(feathered(mask, 90, 7), mask, atol=1e-6)


def test_feathering_is_in_pixels_of_the_picture_whatever_the_size_of_the_mask():
    one = on_grid(half(64, 64), (8, 8), 16, (64, 64))
    other = on_grid(half(128, 128), (8, 8), 16, (64, 64))
    assert torch.allclose(one, other, atol=0.02)
    assert not torch.allclose(one, on_grid(half(64, 64), (8, 8)), atol=0.02)


def test_feathering_many_lines_at_once_is_as_one_by_one(monkeypatch):
    mask = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(0))
    whole = feathered(mask, 5, 9)
    monkeypatch.setattr("stylerdalle.translator.masks.LINES", 7)
    assert torch.equal(feathered(mask, 5, 9), whole)


def test_a_feather_below_0_is_refused():
    with pytest.raises(ValueError, match="feather -1 is not possible"):
        on_grid(half(8, 8), (1, 1), -1)
