"""Optical flow: a known motion is found, of the camera and of a thing that moves by itself."""

import pytest
import torch
import torch.nn.functional as F

from stylerdalle.images.flow import flow_between, sampled


def scene(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random picture (1, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.rand(1, 3, height // n + 2, width // n + 2, generator=generator) for n in (24, 8)]
    big, small = (F.interpolate(part, (height, width), mode="bicubic") for part in parts)
    return (0.6 * big + 0.4 * small).clamp(0, 1)


def constant(x: float, y: float, size: tuple[int, int]) -> torch.Tensor:
    return torch.tensor([x, y])[None, :, None, None].expand(1, 2, *size).clone()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.75, -0.25), (6.5, 3.0), (-31.0, 12.0)])
def test_the_shift_of_a_camera_is_found(shift):
    before = scene(96, 128)
    now = sampled(before, constant(*shift, (96, 128)), "bicubic")
    noise = 0.005 * torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    flow = flow_between(before[0] + noise[0], now[0] + noise[1])
    off = (flow - torch.tensor(shift)[:, None, None]).norm(dim=0)
    left = max(4, int(-shift[0]) + 4)  # beyond the edge nothing is known
    assert off[16:-16, left:-16].mean() < 0.1


def test_zoom_is_found():
    before = scene(96, 128)
    x, y = torch.linspace(-3, 3, 128).expand(96, -1), torch.linspace(-2, 2, 96)[:, None].expand(-1, 128)
    true = torch.stack([x, y])
    flow = flow_between(before[0], sampled(before, true[None], "bicubic")[0])
    assert (flow - true).norm(dim=0)[6:-6, 6:-6].mean() < 0.08


def test_a_thing_that_moves_by_itself_is_found_and_the_rest_stands_still():
    before, thing = scene(96, 128), scene(96, 128, seed=5)
    now = before.clone()
    before[..., 30:66, 30:66] = thing[..., 30:66, 30:66]
    now[..., 31:67, 33:69] = thing[..., 30:66, 30:66]
    flow = flow_between(before[0], now[0])
    inner = flow[:, 40:58, 42:60].flatten(1).mean(1)
    assert (inner - torch.tensor([-3.0, -1.0])).norm() < 0.5
    assert flow[:, :, 96:].norm(dim=0).max() < 0.1


def test_plain_frames_do_not_move():
    plain = torch.full((3, 48, 64), 0.5)
    assert flow_between(plain, plain).abs().max() == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 5), (8, 8)])
def test_tiny_frames_have_a_flow(size):
    frame = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    flow = flow_between(frame, frame)
    assert flow.shape == (2, *size) and flow.isfinite().all()
