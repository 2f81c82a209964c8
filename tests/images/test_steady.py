"""Steady frames: marks move with the picture, stay sharp, and give way where the photo changes."""

import torch
import torch.nn.functional as F

from stylerdalle.images.carry import Carried
from stylerdalle.images.flow import sampled
from stylerdalle.images.steady import Steady

BLOCK = 4  # cells a side of a token
SIZE = (128, 192)


def smooth(height: int, width: int, cell: int, seed: int) -> torch.Tensor:
    """A smooth random picture (3, H, W)."""
    parts = torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(parts, (height, width), mode="bicubic")[0].clamp(0, 1)


SCENE = smooth(200, 400, 12, seed=0)


def marks(seed: int) -> torch.Tensor:
    """A picture that has nothing to do with the photo, other marks for every frame."""
    return smooth(*SIZE, 4, seed)


def photo(x: int, y: int = 0) -> torch.Tensor:
    return SCENE[:, 20 + y : 20 + y + SIZE[0], 20 + x : 20 + x + SIZE[1]]


def cells(picture: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(picture[None], 2)[0]


def energy(picture: torch.Tensor) -> float:
    return float((picture[..., 1:] - picture[..., :-1]).square().mean())


def test_marks_of_a_panned_scene_move_with_it_and_stay_sharp():
    steady, step = Steady(0.5, BLOCK), 3
    first = steady.next(cells(photo(0)), marks(0))
    for i in range(1, 31):
        shown = steady.next(cells(photo(step * i)), marks(i))
    moved = 30 * step
    inner, start = shown[:, 16:-16, 16 : -moved - 16], first[:, 16:-16, 16 + moved : -16]
    assert (inner - start).abs().mean() < 0.4 * (marks(30) - marks(0)).abs().mean()
    assert energy(inner) > 0.8 * energy(start)
    assert energy(shown[..., -40:]) > 0.6 * energy(first)  # what came in is no mean of many frames


def test_marks_stay_on_a_still_scene():
    steady, noise = Steady(0.9, BLOCK), torch.Generator().manual_seed(0)
    first = steady.next(cells(photo(0)), marks(0))
    for i in range(1, 10):
        noisy = photo(0) + 0.01 * torch.randn(3, *SIZE, generator=noise)
        shown = steady.next(cells(noisy), marks(i))
    assert (shown - first).abs().mean() < 0.02


def test_a_cut_brings_nothing_of_the_scene_before():
    steady = Steady(1.0, BLOCK)
    other = smooth(*SIZE, 12, seed=7)
    other[:, :, :30] = photo(0)[:, :, :30]  # by chance the same
    steady.next(cells(photo(0)), marks(0))
    assert torch.equal(steady.next(cells(other), marks(1)), marks(1))


def test_what_changes_is_new_and_the_rest_stays():
    steady = Steady(1.0, BLOCK)
    now = photo(0).clone()
    now[:, 32:80, 32:80] = 1 - now[:, 32:80, 32:80]
    first = steady.next(cells(photo(0)), marks(0))
    shown = steady.next(cells(now), marks(1))
    assert torch.allclose(shown[:, 40:72, 40:72], marks(1)[:, 40:72, 40:72], atol=1e-4)
    assert torch.allclose(shown[:, :, 120:], first[:, :, 120:], atol=1e-4)


def test_slow_light_is_followed_and_the_marks_stay():
    steady = Steady(0.5, BLOCK)
    first = steady.next(cells(photo(0)), 0.5 * marks(0))
    for i in range(1, 60):
        shown = steady.next(cells(photo(0) * (1 + 0.002 * i)), 0.5 * marks(0) + 0.002 * i)
    assert 0.08 < (shown - first).mean() < 0.125
    assert ((shown - shown.mean()) - (first - first.mean())).abs().mean() < 0.03


def test_another_size_begins_anew():
    steady = Steady(0.9, BLOCK)
    steady.next(cells(photo(0)), marks(0))
    small = marks(1)[:, :64, :64]
    assert torch.equal(steady.next(cells(small), small), small)


def test_nothing_is_blurred_on_a_long_way():
    still, flow = smooth(64, 96, 3, seed=3)[None], torch.full((1, 2, 64, 96), 0.3)
    carried, warped = Carried.new(still), still
    for _ in range(40):
        carried, warped = carried.moved(flow), sampled(warped, flow)
    shown, true = carried.shown()[..., :44, :80], still[..., 12:56, 12:92]
    assert (shown - true).abs().mean() < 1e-3
    assert energy(warped) < 0.3 * energy(true)
    assert carried.known[..., :51, :83].all() and not carried.known[..., 53:, :].any()
