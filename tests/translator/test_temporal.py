"""Steady frames: a share of the frame before stays where the photo did not change."""

import torch

from stylerdalle.translator.temporal import TOLERANCE, Frame, steadied, unchanged


def frame(shade: float, token: int, h: int = 4, w: int = 6, upscale: int = 1) -> Frame:
    grid = torch.full((upscale * h, upscale * w), token)
    return Frame(torch.full((3, 2 * h, 2 * w), shade), grid, grid[..., None].float())


def test_the_same_photo_keeps_that_share_and_another_nothing():
    before = frame(0.5, 10)
    same, other = steadied(frame(0.5, 20), before, 0.75), steadied(frame(0.9, 20), before, 0.75)
    assert torch.allclose(same.mixture, torch.tensor(12.5)) and (same.grid == 10).all()
    assert torch.allclose(other.mixture, torch.tensor(20.0), atol=1e-4) and (other.grid == 20).all()
    assert (steadied(frame(0.5, 20), before, 0.4).grid == 20).all()  # a token cannot be kept in part


def test_a_change_is_seen_at_its_place_and_its_neighbours():
    before, now = frame(0.5, 0), frame(0.5, 0)
    now.photo[:, 0, 0] = 1
    share = unchanged(before.photo, now.photo)
    assert share[:2, :2].max() < 1e-3
    assert (share[2:] == 1).all() and (share[:, 2:] == 1).all()


def test_a_slow_change_adds_up_and_is_let_through():
    shown = frame(0.3, 0)
    for step in range(1, 40):
        shown = steadied(frame(0.3 + step * TOLERANCE / 4, step), shown, 0.95)
        assert step - shown.mixture.max() < 4  # against the frame before alone it would be 8


def test_a_translator_of_twice_the_tokens_is_blended_too():
    out = steadied(frame(0.5, 20, upscale=2), frame(0.5, 10, upscale=2), 0.5)
    assert out.mixture.shape == (8, 12, 1) and torch.allclose(out.mixture, torch.tensor(15.0))


def test_frames_without_mixtures_keep_tokens():
    before, now = (Frame(some.photo, some.grid, None) for some in (frame(0.5, 10), frame(0.5, 20)))
    out = steadied(now, before, 0.9)
    assert out.mixture is None and (out.grid == 10).all()
