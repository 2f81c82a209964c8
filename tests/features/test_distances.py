"""Style and content distances."""

import os

import numpy as np
import pytest
import torch

from stylerdalle.bundle import FEATURES
from stylerdalle.checkpoint import load_features
from stylerdalle.features import FeatureNetwork, FeatureShape, content_distance, style_distance, style_statistics
from stylerdalle.features.distances import smoothed
from stylerdalle.learn.crops import centre_crop, to_tensor
from stylerdalle.learn.sources import read_pictures


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureShape((8, 12, 16, 16), (1, 1, 1, 1))).requires_grad_(False)


def stripes(count: int, seed: int, vertical: bool) -> torch.Tensor:
    """Pictures (count, 3, 64, 64) of stripes of one direction at random places."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(count, 1, generator=generator) * 6.28
    wave = 0.5 + 0.4 * torch.sin(torch.arange(64) * 0.8 + shift)  # (count, 64)
    picture = wave[:, None, None, :].expand(count, 3, 64, 64)
    picture = picture if vertical else picture.transpose(2, 3)
    return (picture + 0.05 * torch.randn(picture.shape, generator=generator)).clamp(0, 1)


def test_a_style_is_no_distance_from_itself(network):
    statistics = style_statistics(network(stripes(2, 0, True)))
    assert torch.allclose(style_distance(statistics, statistics), torch.zeros(2), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_marks_of_one_direction_are_nearer_to_each_other_than_to_those_of_another(network, smoothing):
    first, same, other = (
        style_statistics(network(stripes(4, seed, vertical)), smoothing) for seed, vertical in ((0, True), (1, True), (2, False))
    )
    assert style_distance(first, same).max() < style_distance(first, other).min()


def test_style_forgets_places_and_content_does_not(network):
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    moved = picture.roll(32, -1)
    a, b = network(picture), network(moved)
    assert style_distance(style_statistics(a), style_statistics(b)) < 0.01
    assert content_distance(a, b) > 20 * content_distance(a, network(0.9 * picture + 0.05))


def test_several_exemplars_are_one_style(network):
    together = style_statistics(network(stripes(3, 0, True))).mean()
    assert together.grams[0].shape[0] == 1
    assert style_distance(style_statistics(network(stripes(2, 5, True))), together).shape == (2,)


def test_smoothing_tames_peaks():
    x = torch.rand(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    x[0, 0] *= 100
    share = [float(y[:, 0].square().sum() / y.square().sum()) for y in (x, smoothed(x, 0.01))]
    assert share[1] < 0.5 < share[0]


def test_weights_are_one_a_level(network):
    statistics = style_statistics(network(stripes(1, 0, True)))
    with pytest.raises(ValueError, match="3 weights for 4 levels"):
        style_distance(statistics, statistics, (1.0, 1.0, 1.0))


def test_the_distances_have_gradients(network):
    picture = stripes(1, 0, True).requires_grad_(True)
    levels = network(picture)
    other = network(stripes(1, 1, False))
    (style_distance(style_statistics(levels), style_statistics(other)) + content_distance(levels, other)).sum().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0


@pytest.mark.skipif("STYLERDALLE_HELDOUT" not in os.environ, reason="needs held-out works: STYLERDALLE_HELDOUT=heldout.tar")
def test_held_out_works_are_nearer_to_works_of_their_own_style_than_to_others():
    """For a work x, another y of its style and one z of another style: how often d(x, y) < d(x, z); 0.5 is chance."""
    network, works = load_features(FEATURES), {style: [] for style in ("ukiyo-e", "baroque", "rococo", "cubism", "line art")}
    for picture in read_pictures([os.environ["STYLERDALLE_HELDOUT"]]):
        if len(works.get(picture.style, range(13))) < 13:
            works[picture.style].append(style_statistics(network(to_tensor([np.asarray(centre_crop(picture.open(), 256))]))))
    shares = {}
    for style, own in works.items():
        others = [z for other, some in works.items() if other != style for z in some]
        near = [torch.cat([style_distance(x, y) for y in own if y is not x]) for x in own]
        far = [torch.cat([style_distance(x, z) for z in others]) for x in own]
        shares[style] = float(torch.stack([(a[:, None] < b).float().mean() for a, b in zip(near, far, strict=True)]).mean())
    assert min(shares.values()) > 0.55 and sum(shares.values()) / len(shares) > 0.75, shares


@torch.inference_mode()
def test_the_bundled_network_tells_strokes_of_one_direction_from_those_of_another():
    network = load_features(FEATURES)
    first, same, other = (style_statistics(network(stripes(4, seed, vertical))) for seed, vertical in ((0, 1), (1, 1), (2, 0)))
    assert 2 * style_distance(first, same).max() < style_distance(first, other).min()
