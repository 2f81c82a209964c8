"""The paper's options, as its text and the authors' code have them."""

import dataclasses

import pytest
import torch

from stylerdalle.learn.pretraining import PretrainConfig
from stylerdalle.learn.schedule import epochs_to_steps, learning_rate, sample_indices
from stylerdalle.translator.model import Translator, TranslatorConfig
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.presets import NAMES, pretrain_options, tune_options


def pretraining(preset: str, **given) -> PretrainConfig:
    return PretrainConfig(**pretrain_options(preset, given))


def tuning(preset: str, **given) -> TuneConfig:
    options = tune_options(preset, given)
    return TuneConfig.of(options.pop("method", TuneConfig.method), **options)


@pytest.mark.parametrize(("preset", "batch", "epochs"), [("paper-1", 32, 25), ("paper-ru", 8, 20)])
def test_pretraining_is_the_papers(preset, batch, epochs):
    config = pretraining(preset)
    assert (config.lr, config.warm, config.decay, config.batch, config.epochs) == (1e-4, 5000, "linear", batch, epochs)
    assert (config.width, config.heads, config.encoder_layers, config.decoder_blocks) == (512, 8, 4, 4)
    assert (config.grid, config.upscale, config.dropout, config.softness) == (16, 2, 0.5, 0)
    assert not config.identity
    assert not config.augment


@pytest.mark.parametrize("preset", ["paper-1", "paper-ru"])
def test_tuning_is_the_papers(preset):
    config = tuning(preset)
    assert (config.method, config.lr, config.batch, config.epochs, config.rank) == ("reinforce", 1e-6, 16, 4, 0)
    weights = (config.caption_weight, config.patch_weight, config.directional_weight, config.content_weight, config.kl_weight)
    assert weights == (1, 0, 0, 0, 0)
    assert (config.size, config.softness, config.colour_weight, config.pairs_steps, config.patience) == (256, 0, 0, 0, 0)
    assert not config.normalise
    assert not config.augment


@pytest.mark.parametrize(("preset", "embed_dim", "parameters"), [("paper-1", 128, 37_914_112), ("paper-ru", 256, 37_979_648)])
def test_the_translator_has_the_papers_size(preset, embed_dim, parameters):
    c = pretraining(preset)
    sizes = (c.width, c.heads, c.encoder_layers, c.decoder_blocks, c.grid, c.upscale)
    with torch.device("meta"):
        translator = Translator(TranslatorConfig(embed_dim, 8192, *sizes))
    assert sum(p.numel() for p in translator.parameters()) == parameters
    tuned = [*translator.nat_dec.parameters(), *translator.outNet.parameters()]
    assert sum(p.numel() for p in tuned) == 29_434_880


def test_fast_is_the_defaults_and_with_upscale_2_the_papers_translator():
    assert pretraining("fast") == PretrainConfig()
    assert tuning("fast") == TuneConfig()
    config = pretraining("fast", upscale=2)
    assert (config.width, config.encoder_layers, config.decoder_blocks, config.upscale) == (512, 4, 4, 2)
    assert config.identity
    assert config.decay == "cosine"


def test_options_given_win_over_the_preset():
    config = pretraining("paper-1", lr=1e-3, width=64)
    assert (config.lr, config.width, config.batch) == (1e-3, 64, 32)
    assert tuning("paper-1", method="direct", lr=0.1).lr == 0.1
    assert set(NAMES) == {"paper-1", "paper-ru", "fast"}


def test_steps_that_are_given_count_instead_of_the_presets_epochs():
    assert epochs_to_steps(pretraining("paper-1", steps=7), 82_783).steps == 7
    assert epochs_to_steps(tuning("paper-1", steps=7), 82_783).steps == 7


def test_epochs_are_passes_over_all_pictures():
    assert epochs_to_steps(pretraining("paper-1"), 82_783).steps == 64_675  # ceil(25 * 82783 / 32)
    assert epochs_to_steps(tuning("paper-1"), 82_783).steps == 20_696  # ceil(4 * 82783 / 16)
    assert epochs_to_steps(PretrainConfig(steps=9), 82_783).steps == 9
    with pytest.raises(ValueError, match=r"epochs -1.*0 \(steps count\) or more"):
        epochs_to_steps(PretrainConfig(epochs=-1), 5)


def test_the_learning_rate_rises_and_falls_in_straight_lines():
    rates = {step: learning_rate(step, 64_675, 5000, decay="linear") for step in (0, 2499, 4999, 5000, 34_837, 64_674)}
    assert rates[0] == pytest.approx(1 / 5000)
    assert rates[2499] == pytest.approx(0.5)
    assert rates[4999] == rates[5000] == 1
    assert rates[34_837] == pytest.approx(0.5, abs=1e-4)
    assert rates[64_674] == pytest.approx(1 / 59_675)


def test_the_cosine_is_what_it_was():
    assert learning_rate(100, 1000) == 1
    assert learning_rate(550, 1000) == pytest.approx(0.51)
    assert learning_rate(999, 1000) == pytest.approx(0.02, abs=1e-4)


@pytest.mark.parametrize("config", [PretrainConfig, TuneConfig])
def test_an_unknown_decay_is_refused(config):
    with pytest.raises(ValueError, match="decay 'step' is not known: cosine, linear"):
        dataclasses.replace(config(), decay="step")


def test_counted_epochs_take_each_picture_once():
    seen = [int(i) for step in range(10) for i in sample_indices(10, 4, step, 3, None, epochs=4)]
    epochs = [seen[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_papers_preset_follows_its_text_and_can_follow_the_authors_code():
    assert pretraining("paper-1").decoder_input == "repeated"
    assert pretraining("paper-1", decoder_input="tiled").decoder_input == "tiled"
    with pytest.raises(ValueError, match="decoder_input 'woven' is not known: repeated"):
        pretraining("paper-1", decoder_input="woven")
    with pytest.raises(ValueError, match="tiled columns cannot start as the identity: add --no-identity"):
        pretraining("fast", upscale=2, decoder_input="tiled")
