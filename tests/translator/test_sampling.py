"""From logits to tokens."""

import pytest
import torch

from stylerdalle.translator.sampling import Sampling, choose_tokens


def draw(logits: torch.Tensor, generator: torch.Generator, **options) -> torch.Tensor:
    return choose_tokens(logits, Sampling(softness=0, **options), generator)[0]


def test_top_k_and_top_p_keep_the_likeliest_tokens_only():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).expand(2000, 4)
    generator = torch.Generator().manual_seed(0)
    assert set(draw(logits, generator, temperature=1, top_k=2).tolist()) == {0, 1}
    assert set(draw(logits, generator, temperature=1, top_p=0.6).tolist()) == {0, 1}  # 0.5 alone is not yet 0.6
    assert set(draw(logits, generator, temperature=1, top_p=0.4).tolist()) == {0}
    share = (draw(logits, generator, temperature=1) == 0).float().mean()
    assert 0.45 < share < 0.55
    assert draw(logits, generator).unique().tolist() == [0]


def test_the_mixture_lies_between_the_likely_tokens_and_nears_the_likeliest_as_softness_falls():
    rows, generator = torch.tensor([[0.0], [1.0], [100.0]]), torch.Generator()
    logits = torch.tensor([[1.0, 1.0, -50.0], [1.0, 0.0, -50.0]])
    tokens, mixture = choose_tokens(logits, Sampling(softness=0.5), generator, rows)
    assert tokens.tolist() == [0, 0]
    assert mixture[0].item() == pytest.approx(0.5, abs=1e-4)
    assert mixture[1].item() == pytest.approx(1 / (1 + torch.e**2), abs=1e-4)
    assert choose_tokens(logits, Sampling(softness=0.05), generator, rows)[1][1].item() == pytest.approx(0, abs=1e-4)


def test_tokens_outside_the_top_k_have_no_share_in_the_mixture():
    rows = torch.tensor([[0.0], [1.0], [100.0]])
    logits = torch.tensor([[1.0, 1.0, 0.9]])
    mixture = choose_tokens(logits, Sampling(top_k=2, softness=1.0), torch.Generator(), rows)[1]
    assert mixture.item() == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"softness": -0.1}])
def test_options_that_cannot_be_sampled_with_are_refused(options):
    with pytest.raises(ValueError, match="cannot be sampled with"):
        Sampling(**options)
