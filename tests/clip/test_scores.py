"""CLIP rewards as pure functions."""

import logging

import pytest
import tiny
import torch

from stylerdalle.clip import scores as reward
from stylerdalle.clip.scores import credit, crop_boxes, take_crops


@pytest.fixture(scope="module")
def clip() -> torch.nn.Module:
    return tiny.clip_model()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 200), (200, 90), (2, 3)])
def test_pictures_are_brought_to_clips_square(height, width):
    x = reward.prepare(torch.rand(2, 3, height, width), 64)
    assert x.shape == (2, 3, 64, 64)


def test_pixels_are_normalised_unless_the_authors_way_is_asked_for():
    images = torch.full((1, 3, 64, 64), 0.5)
    assert torch.allclose(reward.prepare(images, 64, normalise=False), images)
    expected = (0.5 - torch.tensor(reward.MEAN)) / torch.tensor(reward.STD)
    assert torch.allclose(reward.prepare(images, 64)[0, :, 0, 0], expected)


def test_the_centre_of_a_wide_picture_is_what_counts():
    images = torch.zeros(1, 3, 64, 192)
    images[..., 64:128] = 1
    assert reward.prepare(images, 64, normalise=False).min() == 1


def test_embeddings_are_unit_vectors(clip):
    images = reward.embed_images(clip, torch.rand(3, 3, 50, 70))
    texts = reward.embed_texts(clip, ["a ukiyo-e print", "pixel art"])
    assert torch.allclose(images.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(texts.norm(dim=1), torch.ones(2), atol=1e-5)
    assert -1 <= reward.cosine(images[:2], texts).min() <= 1


def test_the_reward_has_a_gradient_in_the_pixels(clip):
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    reward.cosine(reward.embed_images(clip, images), reward.embed_texts(clip, ["art"])).sum().backward()
    assert images.grad.abs().sum() > 0


def test_the_directional_reward_is_1_along_and_minus_1_against_the_text():
    content, neutral = torch.tensor([[1.0, 0, 0]]), torch.tensor([0.0, 1, 0])
    style = torch.tensor([0.0, 1, 1])
    assert reward.directional(content + torch.tensor([[0, 0, 0.5]]), content, style, neutral).item() == pytest.approx(1)
    assert reward.directional(content - torch.tensor([[0, 0, 0.5]]), content, style, neutral).item() == pytest.approx(-1)


def test_a_text_too_long_for_clip_is_cut_with_a_warning_that_shows_what_was_lost(clip, caplog):
    with caplog.at_level(logging.WARNING):
        reward.embed_texts(clip, ["paint " * 75 + "the very last word"])
    assert "the very last word" in caplog.text
    caplog.clear()
    reward.embed_texts(clip, ["a short text"])
    assert not caplog.text


def test_crops_lie_in_the_picture():
    for top, left, side in crop_boxes(50, 32, torch.Generator().manual_seed(0)):
        assert 16 <= side <= 32
        assert top >= 0 and left >= 0 and top + side <= 32 and left + side <= 32
    assert take_crops(torch.rand(2, 3, 32, 32), [(0, 0, 16), (4, 8, 20)], 8).shape == (2, 3, 8, 8)


def test_a_crops_reward_goes_to_the_places_under_it():
    rewards = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # two boxes, two pictures
    places = credit(rewards, [(0, 0, 16), (8, 8, 16)], 32, 4)  # tokens of 8 px
    assert places.shape == (2, 4, 4)
    assert places[0].tolist() == [[1, 1, 2, 2], [1, 2, 3, 2], [2, 3, 3, 2], [2, 2, 2, 2]]  # 2 is the mean, under no box or both
    assert torch.equal(places[1], 2 * places[0])
