"""How the tokenizer is trained and folded into the dVAE's format."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.learn.schedule import learning_rate
from stylerdalle.training.quantizer import Quantizer
from stylerdalle.training.tokenizer import TokenizerConfig, VQAutoEncoder, flat_colours, mixture, reconstruction_loss, train

SMALL = TokenizerConfig(n_init=16, vocab_size=512, dim=8, steps=6, batch=8, size=32, free_steps=4)


def pictures(count: int, kind: str = "photo") -> list[Picture]:
    out = []
    for i in range(count):
        stream = io.BytesIO()
        Image.fromarray(flat_colours(64, np.random.default_rng(i))).save(stream, "PNG")
        out.append(Picture(str(i), stream.getvalue(), kind=kind))
    return out


@torch.inference_mode()
def test_the_folded_dvae_is_the_trained_form():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQAutoEncoder(SMALL).eval()
        model.quantizer.codebook.copy_(0.1 * torch.randn(512, 8))
        images = torch.rand(2, 3, 40, 48)
    z = model.encode(images)
    model.quantizer.codebook[:30].copy_(z.permute(0, 2, 3, 1).flatten(0, 2)[:30] + 1e-3)  # codes where the pictures are
    code, index, _ = model.quantizer(z)
    folded = model.fold().eval()
    assert index.unique().numel() > 5
    assert torch.equal(folded.encode(images), index)
    trained = ((torch.sigmoid(model.decode(code)) - 0.1) / 0.8).clamp(0, 1)
    assert torch.allclose(folded.decode(index), trained, atol=1e-5)


def test_the_straight_through_gradient_reaches_the_encoder():
    quantizer = Quantizer(16, 4)
    quantizer.codebook.normal_(generator=torch.Generator().manual_seed(0))
    z = torch.randn(1, 4, 3, 3, requires_grad=True)
    out, index, commitment = quantizer.eval()(z)
    assert torch.allclose(out.permute(0, 2, 3, 1), quantizer.codebook[index], atol=1e-6)
    assert commitment > 0
    out.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


def test_dead_codes_are_moved_onto_the_pictures():
    quantizer = Quantizer(32, 2, decay=0.5).train()
    quantizer.codebook.fill_(50.0)
    z = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        quantizer(z)
    assert (quantizer.codebook.norm(dim=1) < 10).all()
    assert quantizer.nearest(z.permute(0, 2, 3, 1).reshape(-1, 2)).unique().numel() > 20


def test_too_few_vectors_for_the_codebook_are_refused():
    with pytest.raises(ValueError, match="10 vectors cannot place 16 codes"):
        Quantizer(16, 4).place_codes(torch.randn(10, 4), torch.Generator())


def test_the_loss_is_0_for_the_picture_itself_and_grows_with_the_error():
    images = torch.rand(1, 3, 16, 16) * 0.8 + 0.1
    exact = torch.logit(0.8 * images + 0.1)
    assert reconstruction_loss(exact, images) < 1e-4
    assert reconstruction_loss(exact + 0.2, images) < reconstruction_loss(exact + 0.4, images)


def test_the_mixture_draws_from_the_kinds_that_are_there():
    draw = mixture(pictures(3), 32, (0.8, 1.5), {"photo": 0.5, "art": 0.4, "flat": 0.1})
    for seed in range(10):
        assert draw(np.random.default_rng(seed)).shape == (32, 32, 3)


def test_the_learning_rate_warms_up_and_ends_low():
    assert learning_rate(0, 1000) == pytest.approx(0.01)
    assert learning_rate(100, 1000) == pytest.approx(1)
    assert learning_rate(999, 1000) == pytest.approx(0.02, abs=1e-3)


def test_the_learning_rate_of_a_run_with_a_time_limit_falls_by_what_is_nearer_to_the_end():
    assert learning_rate(0, 1000, passed=0.5) == learning_rate(0, 1000)  # it rises by steps
    assert learning_rate(200, 10_000_000, passed=0.5) == pytest.approx(0.51)
    assert learning_rate(900, 1000, passed=0.5) == learning_rate(900, 1000)
    assert learning_rate(200, 10_000_000, passed=1.0) == pytest.approx(0.02)
    assert learning_rate(200, 10_000_000, decay="linear", passed=0.75) == 0.25


def test_a_resumed_training_ends_where_it_was_told_to_and_gives_a_dvae(tmp_path):
    first = train(pictures(4), pictures(2), SMALL, Run(tmp_path))
    assert first.vocab_size == 512
    state = Run(tmp_path).load({})
    assert state["step"] == 6
    again = train(pictures(4), pictures(2), SMALL, Run(tmp_path))  # nothing left to do
    assert torch.equal(again.codebook(), first.codebook())
