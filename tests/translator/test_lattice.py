"""Mixtures without the lattice that neighbouring tokens fall into."""

from dataclasses import replace

import pytest
import tiny
import torch

from stylerdalle.tokenizers.codec import encode
from stylerdalle.training.joint import reading_noise
from stylerdalle.translator import lattice
from stylerdalle.translator.lattice import remove_lattice
from stylerdalle.translator.options import MaskedStyle, TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.style import Style, new_adapter
from stylerdalle.translator.texture import Texture
from stylerdalle.translator.translate import StyledTranslator, translate


def chessboard(h: int, w: int) -> torch.Tensor:
    return (1.0 - 2.0 * ((torch.arange(h)[:, None] + torch.arange(w)) % 2))[..., None]


def test_a_lattice_is_taken_out_and_what_lies_under_it_stays():
    under = torch.linspace(0, 1, 20)[:, None, None].expand(20, 30, 3)
    mixture = under + 0.3 * chessboard(20, 30)
    remove_lattice(mixture, torch.ones(20, 30))
    assert (mixture - under).abs().max() < 0.02
    assert (mixture - under).abs()[3:-3].max() < 1e-4  # without the upper and lower edges, where the slope ends


def test_a_plain_picture_and_a_lattice_to_its_edges():
    plain, lattice_alone = torch.full((9, 9, 2), 0.7), 0.7 + 0.2 * chessboard(9, 9)
    for mixture in (plain, lattice_alone):
        remove_lattice(mixture, torch.ones(9, 9))
        torch.testing.assert_close(mixture, torch.full_like(mixture, 0.7), rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", [0, 1])
def test_stripes_and_edges_stay(direction):
    stripes = (torch.arange(24) % 2 * 1.0).expand(24, 24).clone()
    edge = (torch.arange(24) > 11).float().expand(24, 24).clone()
    for picture in (stripes, edge):
        before = (picture if direction else picture.t())[..., None].clone()
        mixture = before.clone()
        remove_lattice(mixture, torch.ones(24, 24))
        assert (mixture - before).abs()[3:-3, 3:-3].max() < 0.07


def test_places_of_no_amount_stay_as_they_are():
    mixture = chessboard(12, 12).clone()
    amount = torch.zeros(12, 12)
    amount[:6] = 1
    remove_lattice(mixture, amount)
    assert torch.equal(mixture[6:], chessboard(12, 12)[6:]) and mixture[2:4].abs().max() < 0.05


def test_parts_of_a_large_mixture_give_the_whole(monkeypatch):
    noise = torch.randn(41, 17, 4, generator=torch.Generator().manual_seed(0))
    whole, parts = noise.clone(), noise.clone()
    remove_lattice(whole, torch.ones(41, 17))
    monkeypatch.setattr(lattice, "ROWS", 5)
    remove_lattice(parts, torch.ones(41, 17))
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (3, 3), (3, 70)])
def test_small_mixtures_work(shape):
    mixture = torch.ones(*shape, 2)
    remove_lattice(mixture, torch.ones(shape))
    torch.testing.assert_close(mixture, torch.ones(*shape, 2))


def test_only_styles_without_a_texture_lose_it():
    tokenizer = tiny.tokenizer()
    translator = reading_noise(tiny.translator(tokenizer))
    plain = Style(new_adapter(translator, 2, torch.Generator().manual_seed(0)))
    textured = replace(plain, texture=Texture(torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1)))
    region = MaskedStyle(textured, torch.ones(1, 8, 8))
    shares = torch.tensor([[[1.0, 0.0], [0.5, 0.0], [1.0, 1.0]]])  # of the picture's style, and of a region's
    for style, strength, wanted in ((plain, 1.0, [1, 0.5, 0]), (textured, 1.0, [0, 0, 0]), (plain, 0.5, [0.5, 0.25, 0])):
        options = TranslateOptions(strength, regions=(region,))
        model = StyledTranslator(translator, tokenizer, [(style, 1.0)], options)
        found = model.over_layers([float(field is None) for field in model.fields], shares)
        torch.testing.assert_close(found, torch.tensor([wanted], dtype=found.dtype))


def test_the_photo_without_a_style_keeps_it(monkeypatch):
    tokenizer = tiny.tokenizer()
    translator = reading_noise(tiny.translator(tokenizer))
    style = Style(new_adapter(translator, 2, torch.Generator().manual_seed(0)))
    called = []
    monkeypatch.setattr("stylerdalle.translator.translate.remove_lattice", lambda *given: called.append(given))
    tokens = encode(tokenizer, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    translate(translator, tokenizer, tokens, [])
    translate(translator, tokenizer, tokens, [(style, 1.0)], TranslateOptions(sampling=Sampling(softness=0)))
    assert not called
    translate(translator, tokenizer, tokens, [(style, 1.0)])
    ((mixture, amount),) = called
    assert mixture.shape == (8, 8, tokenizer.embed_dim) and amount.shape == (8, 8) and amount.min() == 1
