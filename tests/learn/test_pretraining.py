"""How a translator is learnt from pictures alone."""

import csv
import dataclasses

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.learn.pretraining import PretrainConfig, train, translation_gap
from stylerdalle.learn.run import Run
from stylerdalle.learn.targets import soft_cross_entropy, soft_targets
from stylerdalle.tokenizers.protocol import all_embeddings

SMALL = PretrainConfig(width=32, heads=2, encoder_layers=1, decoder_blocks=1, grid=4, steps=4, batch=3)


def test_soft_targets_put_a_token_first_and_sum_to_1():
    embeddings = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    index, shares = soft_targets(embeddings, 5, 0.5)
    assert torch.equal(index[:, 0], torch.arange(40))
    assert torch.allclose(shares.sum(1), torch.ones(40))
    assert (shares.diff(dim=1) <= 1e-6).all()


def test_hard_targets_give_the_plain_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 7, 40, generator=generator), torch.randint(40, (2, 7), generator=generator)
    index, shares = soft_targets(torch.randn(40, 6, generator=generator), 5, 0.0)
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(2, 7)
    assert torch.allclose(soft_cross_entropy(logits, target, index, shares), want, atol=1e-5)


def test_all_embeddings_are_those_of_the_tokenizer():
    tokenizer = tiny.tokenizer()
    assert torch.allclose(all_embeddings(tokenizer)[7], tokenizer.embed(torch.tensor([[[7]]]))[0, 0, 0])


@pytest.mark.parametrize("upscale", [1, 2])
def test_training_lowers_the_loss(tmp_path, upscale):
    config = dataclasses.replace(SMALL, upscale=upscale, steps=100, batch=3, lr=3e-3)
    model = train(tiny.tokenizer(), pictures(8), config, Run(tmp_path))
    assert model.config.upscale == upscale
    with (tmp_path / "curve.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 2
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("upscale", [1, 2])
def test_a_translator_of_a_vqgans_tokens_is_trained_on_crops_of_its_own_size(tmp_path, upscale):
    tokenizer, seen = tiny.vqgan(), []
    tokenizer.encoder.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape[2:])))
    model = train(tokenizer, pictures(4), dataclasses.replace(SMALL, upscale=upscale, steps=1), Run(tmp_path))
    assert seen[0] == (16 * upscale, 16 * upscale)  # 4 tokens of 4 px a side
    assert (model.config.vocab_size, model.config.embed_dim) == (64, 16)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path):
    tokenizer = tiny.tokenizer()
    whole = train(tokenizer, pictures(6), SMALL, Run(tmp_path / "whole"), minutes_between_saves=0)
    broken = Run(tmp_path / "broken")
    saves = []

    def stop_after_two(state, save=broken.save):
        save(state)
        saves.append(state["step"])
        if len(saves) == 2:
            raise KeyboardInterrupt

    broken.save = stop_after_two
    with pytest.raises(KeyboardInterrupt):
        train(tokenizer, pictures(6), SMALL, broken, minutes_between_saves=0)
    assert saves == [1, 2]
    resumed = train(tokenizer, pictures(6), SMALL, Run(tmp_path / "broken"), minutes_between_saves=0)
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-6), name


def test_an_identity_translator_loses_nothing():
    tokenizer = tiny.tokenizer()
    gap, trip, out = translation_gap(tokenizer, tiny.translator(tokenizer), pictures(2), size=64)
    assert gap == pytest.approx(0, abs=1e-6)
    assert trip == out
