"""The feature network: shapes, and what leaves its activations as they are."""

import pytest
import torch
import torch.nn.functional as F

from stylerdalle.features import FeatureNetwork, FeatureShape
from stylerdalle.features.network import balance

SMALL = FeatureShape((4, 6, 8), (2, 1, 1))


@pytest.fixture
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(SMALL)


def test_each_level_halves_the_side(network):
    shapes = [tuple(x.shape) for x in network(torch.rand(2, 3, 40, 24))]
    assert shapes == [(2, 4, 40, 24), (2, 6, 20, 12), (2, 8, 10, 6)]


def test_the_default_fits_in_one_megabyte_of_half_precision():
    assert 2 * sum(p.numel() for p in FeatureNetwork().parameters()) < 1e6


@pytest.mark.parametrize("shape", [(2, 3, 3, 8), (1, 1, 8, 8), (3, 8, 8)])
def test_pictures_that_do_not_fit_are_refused(network, shape):
    with pytest.raises(ValueError, match="both sides 4 px or more"):
        network(torch.rand(shape))


def test_a_plain_picture_has_no_frame(network):
    for level in network(torch.full((1, 3, 16, 16), 0.3)):
        assert torch.allclose(level, level[..., :1, :1].expand_as(level), atol=1e-6)


def test_balancing_scales_channels_and_leaves_their_directions(network):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = network(images)
    balance(network, images)
    for old, new in zip(before, network(images), strict=True):
        alive = old.mean((0, 2, 3)) > 1e-2
        assert torch.allclose(new.mean((0, 2, 3))[alive], torch.ones(int(alive.sum())), atol=1e-3)
        assert F.cosine_similarity(old.transpose(0, 1).flatten(1), new.transpose(0, 1).flatten(1))[alive].min() > 0.9999


def test_gradients_reach_every_pixel_alike(network):
    images = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    network(images)[-1].sum().backward()
    inner = images.grad[..., 6:10, 6:10]  # of one period of the coarsest level
    assert inner.abs().min() > 0 and inner.std((2, 3)).max() < 0.6 * inner.abs().mean()
