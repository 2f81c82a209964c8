"""The photo's colours on a stylised picture."""

import pytest
import torch

from stylerdalle.images.colour import keep_colour, luma


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_luminance_is_the_pictures_and_the_colour_of_a_plain_photo_is_the_photos():
    picture, photo = 0.4 + 0.2 * noise(0, 1, 3, 64, 64), torch.tensor([0.55, 0.45, 0.4]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    out = keep_colour(picture, photo)
    assert torch.allclose(luma(out), luma(picture), atol=1e-5)
    assert torch.allclose(out - luma(out), photo - luma(photo), atol=1e-4)


def halves(left: list[float], right: list[float], size: int = 128) -> torch.Tensor:
    """(1, 3, size, size): two plain colours side by side."""
    return torch.cat([torch.tensor(c).view(1, 3, 1, 1).expand(1, 3, size, size // 2) for c in (left, right)], -1)


def test_an_edge_of_the_photo_that_the_style_did_not_paint_is_soft():
    photo = halves([0.6, 0.4, 0.4], [0.4, 0.4, 0.6])
    out = keep_colour(torch.full((1, 3, 128, 128), 0.5), photo)
    step = (out[..., 1:] - out[..., :-1]).abs().amax()
    assert step < 0.1 * (photo[..., 1:] - photo[..., :-1]).abs().amax()
    assert torch.allclose(
        (out - luma(out))[..., [0, -1]], (photo - luma(photo))[..., [0, -1]], atol=0.01
    )  # far from it: the photo's


def test_an_edge_that_the_style_painted_keeps_its_colours_apart():
    photo, picture = halves([0.6, 0.4, 0.4], [0.4, 0.4, 0.6]), halves([0.3] * 3, [0.7] * 3)
    chroma, want = (x - luma(x) for x in (keep_colour(picture, photo), photo))
    assert torch.allclose(chroma[..., [60, 67]], want[..., [60, 67]], atol=0.02)


def test_a_grid_in_the_photos_chroma_does_not_show():
    blocks = (noise(2, 1, 3, 16, 16) - 0.5).repeat_interleave(8, -1).repeat_interleave(8, -2) * 0.2
    photo = (0.5 + blocks).clamp(0, 1)
    out = keep_colour(torch.full((1, 3, 128, 128), 0.5), photo)
    jumps = [(x - luma(x))[..., 7::8].diff(dim=-1).abs().mean() for x in (out, photo)]
    assert jumps[0] < 0.4 * jumps[1]


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


def test_colours_that_are_hidden_in_the_photo_do_not_count():
    picture = torch.full((1, 3, 96, 96), 0.5)
    alpha = torch.zeros(1, 1, 96, 96)
    alpha[..., 24:72, 24:72] = 1
    seen = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    red, blue = (torch.where(alpha > 0, seen, torch.tensor(c).view(1, 3, 1, 1)) for c in ((1.0, 0, 0), (0, 0, 1.0)))
    one, other = (keep_colour(picture, torch.cat([photo, alpha], 1)) for photo in (red, blue))
    torch.testing.assert_close(one, other)
