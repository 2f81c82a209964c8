"""Decoding with activations that are computed again for the gradient: the same gradient in less memory."""

import pytest
import tiny
import torch


def decoded(tokenizer, embedded: torch.Tensor, recompute: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(pictures, gradient of the embeddings, bytes kept for it)."""
    given, kept = embedded.clone().requires_grad_(True), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pictures = tokenizer.decode_mixture(given, recompute)
    weights = {tensor.untyped_storage().data_ptr() for tensor in tokenizer.parameters()}
    size = sum(count for place, count in kept.items() if place not in weights)
    pictures.square().sum().backward()
    return pictures.detach(), given.grad, size


@pytest.mark.parametrize("tokens", [tiny.tokenizer, tiny.vqgan])
def test_it_gives_the_same_gradient_and_keeps_less(tokens):
    tokenizer = tokens()
    embedded = torch.randn(2, tokenizer.embed_dim, 4, 5, generator=torch.Generator().manual_seed(0))
    (one, gradient, before), (other, again, after) = (decoded(tokenizer, embedded, some) for some in (False, True))
    assert torch.equal(one, other)
    assert torch.allclose(gradient, again, atol=1e-6 * float(gradient.abs().max()))
    assert after < 0.6 * before


def test_without_a_gradient_it_is_plain_decoding():
    tokenizer = tiny.tokenizer()
    embedded = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(tokenizer.decode_mixture(embedded, True), tokenizer.decode_mixture(embedded))
