"""Textures: an input of the translator beside the content."""

from dataclasses import replace

import pytest
import tiny
import torch

from stylerdalle import checkpoint
from stylerdalle.tokenizers.codec import encode
from stylerdalle.translator.options import TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.style import mix
from stylerdalle.translator.texture import Texture, field_under, texture_field
from stylerdalle.translator.translate import texture_shift, translate

TOKENIZER = tiny.tokenizer()
BASE = tiny.translator(TOKENIZER)
ROWS = TOKENIZER.embed(torch.arange(512)[None])[0]


def texture(side: int = 8, seed: int = 0) -> Texture:
    return Texture(torch.randint(512, (1, side, side), generator=torch.Generator().manual_seed(seed)), torch.ones(1))


def test_a_field_counts_from_its_mean_and_a_plain_texture_is_none():
    shown = texture_field([(texture(), 1.0)], ROWS)
    assert shown.shape == (8, 8, 16)
    assert shown.mean((0, 1)).abs().max() < 1e-5 < shown.abs().max()
    plain = Texture(torch.full((1, 8, 8), 7), torch.ones(1))
    assert texture_field([(plain, 1.0)], ROWS).abs().max() < 1e-5
    assert texture_field([], ROWS) is None


def test_textures_add_up_by_their_weights():
    one, two = texture(seed=1), texture(seed=2)
    both = Texture(torch.cat([one.tokens, two.tokens]), torch.tensor([0.5, 2.0]))
    expected = 0.5 * 0.3 * texture_field([(one, 1.0)], ROWS) + 2.0 * 0.3 * texture_field([(two, 1.0)], ROWS)
    assert torch.allclose(texture_field([(both, 0.3)], ROWS), expected, atol=1e-5)


def test_it_repeats_under_the_windows():
    shown = texture_field([(texture(), 1.0)], ROWS)
    out = field_under(shown, torch.tensor([[0, 0], [6, 13]]), 4).unflatten(1, (4, 4))
    assert torch.equal(out[0], shown[:4, :4])
    assert torch.equal(out[1], shown[[6, 7, 0, 1]][:, [5, 6, 7, 0]])


def test_textures_that_cannot_be_shown_are_refused():
    with pytest.raises(ValueError, match=r"shape \(8, 8\)"):
        Texture(torch.zeros(8, 8, dtype=torch.long), torch.ones(1))
    with pytest.raises(ValueError, match="of 8 and 4 tokens a side"):
        texture_field([(texture(), 1.0), (texture(4), 1.0)], ROWS)
    with pytest.raises(ValueError, match="vocabulary has 100"):
        texture_field([(texture(), 1.0)], ROWS[:100])
    with pytest.raises(ValueError, match="has a texture, which this translator cannot read"):
        replace(tiny.style(BASE, "a"), texture=texture()).check(tiny.translator(TOKENIZER, upscale=2))


def test_a_plain_picture_gets_marks_from_the_texture_and_none_without():
    style = tiny.style(BASE, "a", texture=texture())
    tokens = encode(TOKENIZER, torch.full((1, 3, 64, 64), 0.5))
    inner = slice(2, -2)
    without, with_it = (
        translate(BASE, TOKENIZER, replace(tokens, grid=torch.zeros_like(tokens.grid)), [(s, 1.0)]).mixture[0, inner, inner]
        for s in (replace(style, texture=None), style)
    )
    assert with_it.std((0, 1)).max() > 3 * without.std((0, 1)).max()


def test_a_seed_moves_the_texture():
    style = tiny.style(BASE, "a", texture=texture())
    tokens = encode(TOKENIZER, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    first, again, other = (
        translate(BASE, TOKENIZER, tokens, [(style, 1.0)], TranslateOptions(sampling=Sampling(seed=seed))).mixture
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert texture_shift(0).tolist() == [0, 0]


def test_a_file_keeps_it_and_a_mix_has_both(tmp_path):
    one, two = (tiny.style(BASE, name, texture=texture(seed=k)) for k, name in enumerate("ab"))
    checkpoint.save_style(tmp_path / "mix.safetensors", mix([(one, 0.25), (two, 0.5), (tiny.style(BASE, "c"), 1.0)]))
    loaded = checkpoint.load_style(tmp_path / "mix.safetensors").texture
    assert torch.equal(loaded.tokens, torch.cat([one.texture.tokens, two.texture.tokens]))
    assert loaded.weights.tolist() == [0.25, 0.5]
