"""The lines of the photo in its stylised picture: what they add, and where."""

import pytest
import torch

from stylerdalle.images import lines as module
from stylerdalle.images.lines import COARSE, add_lines, lines
from stylerdalle.settings import LINES


def edge(side: int = 96, low: float = 0.2, high: float = 0.8) -> torch.Tensor:
    """A photo (1, 3, side, side), dark on the left."""
    photo = torch.full((1, 3, side, side), low)
    photo[..., side // 2 :] = high
    return photo


def test_an_edge_becomes_darker_on_its_dark_side_and_lighter_on_its_light_side():
    found = lines(edge())[0, 0, 48]
    assert found[46] < -0.15 < 0.15 < found[49]
    assert found[: 48 - 2 * COARSE - 8].abs().max() < 1e-3 > found[48 + 2 * COARSE + 8 :].abs().max()


def test_grain_is_left_out_and_strong_small_forms_stay():
    generator = torch.Generator().manual_seed(0)
    grain = 0.5 + 0.03 * torch.randn(1, 1, 96, 96, generator=generator).expand(-1, 3, -1, -1)
    assert lines(grain).std() < 0.2 * grain.std()
    eye = torch.full((1, 3, 96, 96), 0.7)
    eye[..., 46:50, 46:50] = 0.1
    assert lines(eye)[0, 0, 48, 48] < -0.4


def test_smooth_light_gets_no_lines():
    ramp = torch.linspace(0, 1, 256).expand(1, 3, 64, 256)
    assert lines(ramp)[..., 64:-64].abs().max() < 0.01


def test_alpha_stays_and_amounts_add_up():
    picture = torch.full((2, 4, 96, 96), 0.5)
    out = add_lines(picture.clone(), edge(), 0.5)
    assert torch.equal(out[:, 3], picture[:, 3])
    torch.testing.assert_close(out[1, :3], out[0, :3])
    torch.testing.assert_close(out[:1, :3], (0.5 + 0.5 * lines(edge())).expand(-1, 3, -1, -1))
    assert torch.equal(add_lines(picture.clone(), edge(), 0), picture)


def test_photos_come_again_for_several_candidates():
    photos = torch.cat([edge(), edge().flip(-1)])
    out = add_lines(torch.full((4, 3, 96, 96), 0.5), photos)
    assert torch.equal(out[:2], out[2:]) and not torch.equal(out[0], out[1])


def test_nothing_is_added_where_a_mask_is_black():
    where = torch.zeros(1, 96, 96)
    where[:, :48] = 1
    picture = torch.full((1, 3, 96, 96), 0.5)
    out = add_lines(picture.clone(), edge(), 1.0, where)
    assert torch.equal(out[..., 48:, :], picture[..., 48:, :]) and not torch.equal(out[..., :48, :], picture[..., :48, :])


@pytest.mark.parametrize("seed", [None, 3])
def test_parts_of_a_large_picture_are_as_the_whole(monkeypatch, seed):
    photo = torch.rand(1, 3, 150, 190, generator=torch.Generator().manual_seed(0))
    photo[..., 60:] = 0.5
    picture = torch.rand(1, 3, 150, 190, generator=torch.Generator().manual_seed(1))
    whole = add_lines(picture.clone(), photo, seed=seed)
    monkeypatch.setattr(module, "TILE", 64)
    torch.testing.assert_close(add_lines(picture.clone(), photo, seed=seed), whole, atol=1e-4, rtol=0)


def stripes(side: int = 192) -> torch.Tensor:
    """A picture (1, 3, side, side) of upright stripes, 8 px apart, as of tokens."""
    return (0.5 + 0.3 * torch.sin(torch.arange(side) * torch.pi / 4)).expand(1, 3, side, -1).contiguous()


def test_marks_are_bent_where_the_photo_is_plain_and_stay_where_it_has_lines():
    photo, picture = torch.full((1, 3, 192, 192), 0.5), stripes()
    photo[..., :96] = (torch.arange(96) // 6 % 2).float()
    out = add_lines(picture.clone(), photo, 1.0, seed=1)
    moves = (out - add_lines(picture.clone(), photo, 1.0)).abs()
    assert moves[..., 140:].mean() > 0.1 and moves[..., 16:80].max() < 0.01
    columns = out[0, 0, :, 140:]
    assert columns.std(0).mean() > 3 * picture[0, 0, :, 140:].std(0).mean()  # the stripes are not straight any more


def test_bends_are_those_of_the_seed_and_the_same_in_every_picture():
    photo, picture = torch.full((2, 3, 192, 192), 0.5), stripes().repeat(2, 1, 1, 1)
    one, two, other = (add_lines(picture.clone(), photo, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, two) and torch.equal(one[0], one[1]) and not torch.equal(one, other)
    alone = add_lines(picture[:1].clone(), photo[:1], seed=1)
    torch.testing.assert_close(alone, one[:1])
    nowhere = add_lines(picture.clone(), photo, 0.5, torch.zeros(1, 192, 192), seed=1)
    torch.testing.assert_close(nowhere, picture, atol=1e-5, rtol=0)
    soft = (add_lines(picture.clone(), photo, LINES / 4, seed=1) - picture).abs().mean()
    assert 0 < soft < 0.7 * (one - picture).abs().mean()


def test_a_photo_of_another_size_is_stretched_and_tiny_pictures_pass():
    picture = torch.full((1, 3, 192, 192), 0.5)
    assert add_lines(picture, edge(96))[0, 0, 96, 92] < 0.45
    assert add_lines(torch.rand(1, 3, 2, 3), torch.rand(1, 3, 2, 3), seed=0).shape == (1, 3, 2, 3)


def test_what_cannot_be_used_is_said():
    picture = torch.zeros(3, 3, 8, 8)
    with pytest.raises(ValueError, match="2 photos for 3 pictures"):
        add_lines(picture, torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"out of range: 0 .* to 1"):
        add_lines(picture, torch.zeros(1, 3, 8, 8), 1.5)
