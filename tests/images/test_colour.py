"""The photo's colours on a stylised picture."""

import pytest
import torch

from stylerdalle.images.colour import keep_colour, luma


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_luminance_is_the_pictures_and_chroma_the_photos():
    picture, photo = 0.4 + 0.2 * noise(0, 1, 3, 8, 8), 0.45 + 0.1 * noise(1, 1, 3, 8, 8)
    out = keep_colour(picture, photo)
    assert torch.allclose(luma(out), luma(picture), atol=1e-5)
    assert torch.allclose(out - luma(out), photo - luma(photo), atol=1e-5)


def test_colours_that_do_not_fit_are_paler_and_the_luminance_stays():
    picture, photo = noise(0, 1, 3, 16, 16), noise(1, 1, 3, 16, 16).round()
    out = keep_colour(picture, photo)
    assert out.min() >= 0 and out.max() <= 1
    assert torch.allclose(luma(out), luma(picture), atol=1e-5)


def test_amount_0_is_the_picture_and_a_half_is_halfway():
    picture, photo = noise(0, 1, 3, 8, 8), noise(1, 1, 3, 8, 8)
    assert torch.equal(keep_colour(picture, photo, 0), picture)
    assert torch.allclose(keep_colour(picture, photo, 0.5), (picture + keep_colour(picture, photo)) / 2, atol=1e-6)


def test_alpha_stays_the_input_stays_and_a_photo_of_another_size_is_stretched():
    picture, photo = noise(0, 2, 4, 8, 8), noise(1, 1, 4, 4, 4)
    before = picture.clone()
    out = keep_colour(picture, photo)
    assert torch.equal(out[:, 3], picture[:, 3]) and torch.equal(picture, before)
    assert out.shape == picture.shape and not torch.equal(out[:, :3], picture[:, :3])


def test_as_many_photos_as_pictures_or_one_and_an_amount_in_range():
    with pytest.raises(ValueError, match="2 photos for 3 pictures"):
        keep_colour(torch.zeros(3, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"amount 1.5 is out of range"):
        keep_colour(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), 1.5)
