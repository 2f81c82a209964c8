"""Noise: an input of the translator that makes plain areas differ from place to place, without a period."""

from dataclasses import replace

import pytest
import tiny
import torch

from stylerdalle import checkpoint
from stylerdalle.tokenizers.codec import encode
from stylerdalle.training.joint import reading_noise
from stylerdalle.translator.model import Translator, TranslatorConfig
from stylerdalle.translator.noise import SPACINGS, noise_at, noise_field, noise_grid
from stylerdalle.translator.options import MaskedStyle, TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.style import new_adapter, translate_with
from stylerdalle.translator.texture import laid_under
from stylerdalle.translator.translate import translate

TOKENIZER = tiny.tokenizer()
PLAIN = tiny.translator(TOKENIZER)


def noisy() -> Translator:
    """A translator that reads noise: the two first columns after the texture's are not zero."""
    model = reading_noise(PLAIN)
    model.nat_dec.texture.weight.data[:, -len(SPACINGS) :].normal_(generator=torch.Generator().manual_seed(1))
    return model.eval().requires_grad_(False)


BASE = noisy()
STYLE = tiny.style(BASE, "a")


def painted(tokens, seed=0, styles=((STYLE, 1.0),), **options):
    return translate(BASE, TOKENIZER, tokens, list(styles), TranslateOptions(sampling=Sampling(seed=seed), **options)).grid


def plain_area(side: int = 24):
    tokens = encode(TOKENIZER, torch.full((1, 3, 8 * side, 8 * side), 0.5))
    return replace(tokens, grid=torch.zeros_like(tokens.grid))


def test_room_for_noise_changes_nothing_yet():
    content = TOKENIZER.embed(torch.randint(512, (2, 16), generator=torch.Generator().manual_seed(0)))
    roomy = reading_noise(PLAIN)
    under = laid_under(None, noise_at(torch.tensor([[0, 0], [3, 9]]), 4).flatten(1, 2), 16)
    assert roomy.config == replace(PLAIN.config, noise=len(SPACINGS))
    assert torch.equal(roomy(content, under), PLAIN(content))
    assert reading_noise(roomy) is roomy


def test_equal_seeds_give_equal_marks_and_others_other_marks():
    tokens = plain_area()
    assert torch.equal(painted(tokens, 1), painted(tokens, 1))
    assert not torch.equal(painted(tokens, 1), painted(tokens, 2))


def test_marks_of_a_plain_area_do_not_repeat_at_any_period():
    grid = painted(plain_area(40))[0]
    assert grid.unique().numel() > 10
    for period in range(1, 21):
        for shifted, kept in ((grid[period:], grid[:-period]), (grid[:, period:], grid[:, :-period])):
            assert (shifted == kept).float().mean() < 0.6, period


def test_without_a_style_the_picture_stays_whatever_the_noise():
    tokens = encode(TOKENIZER, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(painted(tokens, 1, ()), painted(tokens, 2, ()))
    assert torch.equal(painted(tokens, 1, strength=0.0), painted(tokens, 1, ()))


def test_the_noise_of_a_picture_is_that_of_its_seed_and_its_whole_grid():
    whole = noise_grid(12, 10, 5)
    assert whole.shape == (12, 10, len(SPACINGS))
    assert torch.equal(whole.permute(2, 0, 1), noise_field(12, 10, torch.Generator().manual_seed(5))[0])
    first, again, other = noise_at(torch.tensor([[0, 5], [0, 5], [5, 0]]), 12)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_regions_read_noise_too():
    tokens = plain_area()
    left = torch.zeros(1, 192, 192)
    left[..., :96] = 1
    region = MaskedStyle(STYLE, left)
    first, second = (painted(tokens, seed, (), regions=(region,)) for seed in (1, 2))
    assert not torch.equal(first[..., :10], second[..., :10])
    assert torch.equal(first[..., 14:], second[..., 14:])


def test_it_is_saved_and_read_again(tmp_path):
    checkpoint.save_translator(tmp_path / "translator.safetensors", BASE)
    again = checkpoint.load_translator(tmp_path / "translator.safetensors")
    assert again.config == BASE.config
    assert again.nat_dec.texture.weight.shape == (32, 16 + len(SPACINGS))


def test_every_adapter_can_change_how_noise_is_read():
    assert "nat_dec.texture.weight.lora_a" in new_adapter(BASE, 2, torch.Generator())
    assert "nat_dec.texture.weight.lora_a" not in new_adapter(PLAIN, 2, torch.Generator())


def test_what_does_not_fit_is_refused():
    content = TOKENIZER.embed(torch.zeros(1, 16, dtype=torch.long))
    with pytest.raises(ValueError, match="16 numbers lie under each token: this translator reads 16 of a texture and 2 of noise"):
        translate_with(BASE, content, [(STYLE, 1.0)], torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match="3 planes of noise"):
        TranslatorConfig(texture=True, noise=3)
    with pytest.raises(ValueError, match="2 planes of noise"):
        TranslatorConfig(noise=2)
