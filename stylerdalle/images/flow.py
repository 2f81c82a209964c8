"""Optical flow between two frames of a video: the camera's motion first, then what moves besides.

The camera's motion is an affine map: a whole shift by phase correlation (Kuglin and Hines, 1975), refined by Gauss-Newton steps
from coarse to fine, with little weight where the frames disagree, because something else moves there. Then each place gets its
own shift by iterated Lucas-Kanade (1981) steps from coarse to fine. A place without any marks keeps the camera's motion.

Letters: H x W px of the frames, which may be reduced ones. A flow is (2, H, W), (x, y) in these px.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

COARSEST = 12  # px of the shorter side, at least, of the coarsest level
CORRELATED = 96  # px of the shorter side, at most, of the level that the whole shift is found on
CAMERA_STEPS = 5  # of Gauss-Newton on each level
LOCAL_LEVELS = (3, 2, 1)  # on which places move by themselves; 0 is the finest
LOCAL_STEPS = 3
REACH = 2  # px to each side that a place's own shift is computed from, averaged twice
STIFF = 1e-4  # mean squared gradient, of pixels in [0, 1], below which a place keeps the motion of the coarser levels
NOISE = 0.006  # difference of smoothed pixels in [0, 1] that is no motion
ROBUST = 0.03  # difference of pixels in [0, 1] from which a place says little about the camera


def flow_between(before: Tensor, now: Tensor) -> Tensor:
    """Where each pixel of a frame was in the frame before.

    Args:
        before, now: (3, H, W) in [0, 1].

    Returns:
        float32 (2, H, W): now[:, y, x] is about before at (x + flow[0, y, x], y + flow[1, y, x]).
    """
    old, new = (pyramid(frame.float().mean(0)[None, None]) for frame in (before, now))
    camera = old[0].new_zeros(6)
    k = next((k for k, level in enumerate(old) if min(level.shape[-2:]) <= CORRELATED), len(old) - 1)
    camera[:2] = whole_shift(old[k], new[k]) / 2 ** (len(old) - 1 - k)
    for a, b in zip(reversed(old), reversed(new), strict=True):
        camera = refined_camera(a, b, camera if a is old[-1] else 2 * camera)
    levels = [k for k in LOCAL_LEVELS if k < len(old)] or [0]
    own = torch.zeros_like(affine(camera, old[levels[0]]))
    for k in levels:
        size = old[k].shape[-2:]
        own = resized_flow(own, size)
        own = refined_places(old[k], new[k], affine(camera / 2**k, old[k]), own)
    k = levels[-1]
    own = own * needed(old[k], new[k], affine(camera / 2**k, old[k]), own)
    return (affine(camera, old[0]) + resized_flow(own, old[0].shape[-2:]))[0]


def resized_flow(flow: Tensor, size: Sequence[int]) -> Tensor:
    """A flow (1, 2, H, W) for frames of another size, in their px."""
    scale = torch.tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]], device=flow.device)
    return F.interpolate(flow, list(size), mode="bilinear") * scale[:, None, None]


def needed(before: Tensor, now: Tensor, camera: Tensor, own: Tensor) -> Tensor:
    """Which places move by themselves, (1, 1, H, W) in [0, 1]: their own shift leaves less of a difference than the camera's."""
    left, better = (around((sampled(before, flow) - now).square()) for flow in (camera, camera + own))
    return around(((left / (better + NOISE**2) - 1.5) / 1.5).clamp(0, 1))


def pyramid(frame: Tensor) -> list[Tensor]:
    """A frame (1, 1, H, W), a little smoothed, and smaller ones, each half as large as the one before."""
    levels = [F.avg_pool2d(F.pad(frame, (1, 1, 1, 1), mode="replicate"), 3, 1)]
    while min(levels[-1].shape[-2:]) >= 2 * COARSEST:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def sampled(frame: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """A frame (1, C, H, W) at (x, y) + flow (1, 2, H, W); beyond its edges it is like the nearest pixel inside."""
    height, width = frame.shape[-2:]
    y, x = torch.arange(height, device=flow.device), torch.arange(width, device=flow.device)
    across = (flow[:, 0] + x) * (2 / max(1, width - 1)) - 1
    down = (flow[:, 1] + y[:, None]) * (2 / max(1, height - 1)) - 1
    return F.grid_sample(frame, torch.stack([across, down], -1), mode, "border", align_corners=True)


def inside(flow: Tensor) -> Tensor:
    """(1, 1, H, W): 1 where (x, y) + flow (1, 2, H, W) is within the frame, 0 where it is beyond an edge."""
    height, width = flow.shape[-2:]
    y, x = torch.arange(height, device=flow.device)[:, None] + flow[:, 1], torch.arange(width, device=flow.device) + flow[:, 0]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).float()[:, None]


def whole_shift(before: Tensor, now: Tensor) -> Tensor:
    """The shift (x, y) in whole px of (1, 1, H, W) frames by phase correlation; zero if that explains the frames better."""
    height, width = now.shape[-2:]
    hann = torch.hann_window(height, False, device=now.device)[:, None] * torch.hann_window(width, False, device=now.device)
    a, b = (torch.fft.rfft2((some - some.mean())[0, 0] * hann) for some in (before, now))
    cross = a * b.conj()
    peaks = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-9), (height, width))
    y, x = divmod(int(peaks.argmax()), width)
    y, x = y - height * (y > height // 2), x - width * (x > width // 2)
    found = now.new_tensor([x, y])
    errors = [misfit(before, now, shift[None, :, None, None].expand(1, 2, height, width)) for shift in (0 * found, found)]
    return found if errors[1] < errors[0] else 0 * found


def misfit(before: Tensor, now: Tensor, flow: Tensor) -> float:
    """How badly a flow explains a frame: the mean difference of pixels, those beyond the edges left out."""
    seen = inside(flow)
    if seen.mean() < 0.25:
        return float("inf")
    difference = (sampled(before, flow) - now).abs().clamp(max=0.1)
    return float((difference * seen).sum() / seen.sum())


def axes(frame: Tensor) -> tuple[Tensor, Tensor]:
    """x (W) and y (H, 1) of the pixels, -1 to 1."""
    height, width = frame.shape[-2:]
    return (
        torch.linspace(-1, 1, width, device=frame.device),
        torch.linspace(-1, 1, height, device=frame.device)[:, None],
    )


def affine(camera: Tensor, frame: Tensor) -> Tensor:
    """The flow (1, 2, H, W) of a camera (6): (x, y) at the centre, and what is added at the right and at the lower edge."""
    x, y = axes(frame)
    return torch.stack([camera[i] + camera[2 + i] * x + camera[4 + i] * y for i in range(2)])[None]


def slopes(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of (1, 1, H, W), (across, down), each (H, W)."""
    wide = F.pad(frame, (1, 1, 1, 1), mode="replicate")[0, 0]
    return (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2, (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2


def refined_camera(before: Tensor, now: Tensor, camera: Tensor) -> Tensor:
    """Gauss-Newton steps for the camera's six numbers, on one level."""
    x, y = axes(now)
    for _ in range(CAMERA_STEPS):
        flow = affine(camera, now)
        moved = sampled(before, flow)
        off = (moved - now)[0, 0]
        weight = inside(flow)[0, 0] / (1 + (off / ROBUST) ** 2) ** 2
        across, down = slopes(moved)
        terms = torch.stack([across, down, across * x, down * x, across * y, down * y]).flatten(1)  # (6, H*W)
        weighted = terms * weight.flatten()
        normal = weighted @ terms.T
        normal += torch.eye(6, device=now.device) * (1e-6 * now.numel() + 1e-4 * normal.trace())
        step = torch.linalg.solve(normal, weighted @ off.flatten())
        camera = camera - step.to(camera)
    return camera


def refined_places(before: Tensor, now: Tensor, camera: Tensor, own: Tensor) -> Tensor:
    """Lucas-Kanade steps for the shift (1, 2, H, W) of each place, beside that of the camera, on one level."""
    for _ in range(LOCAL_STEPS):
        moved = sampled(before, camera + own)
        across, down = slopes(moved)
        off = (now - moved)[0, 0]
        products = torch.stack([across * across, down * down, across * down, across * off, down * off])
        xx, yy, xy, xo, yo = around(products[None])[0]
        xx, yy = xx + STIFF, yy + STIFF
        det = xx * yy - xy * xy
        step = torch.stack([yy * xo - xy * yo, xx * yo - xy * xo]) / det
        own = around(own + step.clamp(-1, 1)[None])
    return own


def around(x: Tensor) -> Tensor:
    """Means (1, C, H, W) of the pixels around each pixel, those nearer counting more."""
    height, width = x.shape[-2:]
    for _ in range(2):  # sums of parts: several times as fast as avg_pool2d on a CPU
        wide = F.pad(x, (REACH,) * 4, mode="replicate")
        tall = torch.stack([wide[..., i : i + height, :] for i in range(2 * REACH + 1)]).mean(0)
        x = torch.stack([tall[..., i : i + width] for i in range(2 * REACH + 1)]).mean(0)
    return x
