"""Flat squares in few colours, as in pixel art."""

from __future__ import annotations

from dataclasses import replace

import tiny
import torch

from stylerdalle.images.blocks import COLOURS, draw_blocks, in_palette, square_means, square_of
from stylerdalle.images.lines import lines
from stylerdalle.pipeline import stylize
from stylerdalle.settings import LINES
from stylerdalle.tokenizers.codec import decode, encode, free_of_blocks
from stylerdalle.tokenizers.tokens import joined
from stylerdalle.translator.options import MaskedStyle, TranslateOptions
from stylerdalle.translator.style import mix
from stylerdalle.translator.translate import translate


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def flat(part: torch.Tensor) -> bool:
    """Whether all pixels of (..., h, w) have one colour."""
    return bool((part == part[..., :1, :1]).all())


def test_each_square_has_one_colour_that_is_near_to_its_mean():
    picture = noise(20, 29)
    before = picture.clone()
    draw_blocks(picture, torch.ones(3, 4), 8)
    for y in range(0, 20, 8):
        for x in range(0, 29, 8):
            part, was = picture[:, y : y + 8, x : x + 8], before[:, y : y + 8, x : x + 8]
            assert flat(part)
            assert (part[:, 0, 0] - was.mean((1, 2))).abs().max() < 3 / 255  # twelve squares have colours of their own


def test_a_picture_has_few_colours():
    picture = noise(160, 160)
    draw_blocks(picture, torch.ones(20, 20), 8)
    assert len((255 * picture).round().byte().flatten(1).T.unique(dim=0)) <= COLOURS


def test_shares_leave_the_rest_of_the_picture_and_mix():
    picture, whole = noise(16, 24), noise(16, 24)
    before = picture.clone()
    shares = torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 0.5]])
    draw_blocks(picture, shares, 8)
    draw_blocks(whole, (shares > 0).float(), 8)
    assert torch.equal(picture[..., :8], before[..., :8])
    assert torch.equal(picture[..., 8:16], whole[..., 8:16])
    torch.testing.assert_close(picture[..., 16:], (before[..., 16:] + whole[..., 16:]) / 2)


def test_squares_of_a_fraction_of_pixels_cover_the_picture():
    rows = square_of(23, 5.5, 4)
    assert rows.tolist() == [0] * 6 + [1] * 5 + [2] * 6 + [3] * 6  # what is left over belongs to the last one
    means = square_means(torch.ones(3, 23, 7), rows, square_of(7, 5.5, 2), (4, 2))
    assert torch.equal(means, torch.ones(3, 4, 2))


def test_colours_outside_of_what_is_used_stay_and_do_not_count():
    colours = noise(4, 40)
    used = torch.zeros(4, 40, dtype=torch.bool)
    used[0, :2] = True
    made = in_palette(colours, used)
    assert torch.equal(made[:, ~used], colours[:, ~used])
    assert (made[:, used] - colours[:, used]).abs().max() <= 1 / 255  # two colours have room for themselves


def pixelated(bundle, blocks: float = 1.0):
    return replace(tiny.style(bundle.translator, "pixel"), blocks=blocks)


def test_a_style_of_blocks_paints_squares_without_lines_or_bends(bundle):
    photo = noise(40, 56)[None]
    made = stylize(photo, pixelated(bundle), bundle)
    assert all(flat(made[..., y : y + 8, x : x + 8]) for y in range(0, 40, 8) for x in range(0, 56, 8))
    assert LINES * lines(photo).abs().max() > 0.01  # there would have been some


def test_strength_and_masks_hold_for_blocks(bundle):
    photo, style = noise(32, 32)[None], pixelated(bundle)
    assert torch.equal(stylize(photo, style, bundle, strength=0.0), stylize(photo, pixelated(bundle, 0.0), bundle, strength=0.0))
    mask = torch.zeros(1, 32, 32)
    mask[..., 16:] = 1
    half = stylize(photo, style, bundle, mask=mask)
    assert flat(half[..., :8, 24:]) and not flat(half[..., :8, :8])


def test_a_region_of_blocks_leaves_the_rest(bundle):
    tokenizer, translator = bundle.tokenizer, bundle.translator
    content = encode(tokenizer, noise(32, 32)[None])
    mask = torch.zeros(1, 32, 32)
    mask[:, :16] = 1
    options = TranslateOptions(regions=(MaskedStyle(pixelated(bundle), mask),))
    tokens = translate(translator, tokenizer, content, [(pixelated(bundle, 0.0), 1.0)], options)
    assert tokens.blocks is not None
    assert tokens.blocks[0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2
    free = free_of_blocks(tokens, tokenizer.downsample)
    assert free is not None and torch.equal(free[0, :16], torch.zeros(16, 32)) and torch.equal(free[0, 16:], torch.ones(16, 32))
    made = decode(tokenizer, tokens)
    assert flat(made[..., :8, :8]) and not flat(made[..., 24:, :8])
    assert joined([tokens, tokens]).blocks.shape == (2, 4, 4)


def test_the_size_of_squares_follows_detail(bundle):
    photo = noise(32, 48)[None]
    made = stylize(photo, pixelated(bundle), bundle, detail=2.0)
    assert flat(made[..., :4, :4]) and not flat(made[..., :8, :8])


def test_mixtures_have_a_share_of_blocks(bundle):
    mixed = mix([(pixelated(bundle), 0.25), (pixelated(bundle, 0.0), 0.75)])
    assert mixed.blocks == 0.25
    assert mix([(pixelated(bundle), 1.5), (pixelated(bundle), -3.0)]).blocks == 0
