"""The weave: threads along the axes go; strokes, edges and strong lines stay."""

import pytest
import tiny
import torch

from stylerdalle.tokenizers import codec
from stylerdalle.tokenizers.codec import decode
from stylerdalle.tokenizers.tokens import Tokens
from stylerdalle.tokenizers.weave import LIMIT, without_weave

Y, X = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
INNER = slice(8, 56)


def wave(phase: torch.Tensor, amount: float) -> torch.Tensor:
    return (0.5 + amount * torch.cos(2 * torch.pi * phase)).expand(1, 3, 64, 64)


def left(before: torch.Tensor) -> float:
    """Share of the contrast that is left."""
    after = without_weave(before)[..., INNER, INNER]
    return float(after.std() / before[..., INNER, INNER].std())


@pytest.mark.parametrize("period", [2, 8 / 3])
@pytest.mark.parametrize("along", [X, Y])
def test_threads_go(along, period):
    assert left(wave(along / period, 0.02)) < 0.3


@pytest.mark.parametrize(("what", "phase"), [("strokes that lean", (X + Y) / 6), ("strokes", X / 16), ("shades", Y / 32)])
def test_strokes_stay(what, phase):
    assert left(wave(phase, 0.02)) > 0.85


def test_an_edge_keeps_its_contrast_and_a_plain_picture_is_the_same():
    edge = (0.1 + 0.8 * (X > 31)).expand(1, 3, 64, 64)
    assert (without_weave(edge) - edge).abs().max() <= LIMIT
    plain = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(without_weave(plain), plain)


def test_colours_do_not_change_and_pixels_stay_in_range():
    threads = wave(X / 2, 0.02) * torch.tensor([1.0, 0.6, 0.2]).view(1, 3, 1, 1)
    after, grey = without_weave(threads), threads.mean(1, keepdim=True)
    torch.testing.assert_close(after - after.mean(1, keepdim=True), threads - grey)
    assert without_weave(wave(X / 2, 0.5)).min() >= 0 and without_weave(wave(X / 2, 0.5)).max() <= 1


def test_only_mixtures_are_changed_and_tiles_do_not_show(monkeypatch):
    tokenizer = tiny.tokenizer()
    grid = torch.randint(512, (1, 24, 24), generator=torch.Generator().manual_seed(0))
    hard = Tokens(grid, 192, 192, 512)
    soft = Tokens(grid, 192, 192, 512, mixture=tokenizer.embed(grid))
    whole = decode(tokenizer, soft)
    inner = (..., slice(8, -8), slice(8, -8))  # beyond the edges the picture goes on, which the comparison cannot see
    torch.testing.assert_close(whole[inner], without_weave(decode(tokenizer, hard))[inner], atol=1e-5, rtol=0)
    monkeypatch.setattr(codec, "TILE_TOKENS", 8)
    torch.testing.assert_close(decode(tokenizer, soft), whole, atol=1e-5, rtol=0)
