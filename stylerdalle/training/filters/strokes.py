"""What the filters share: colours, smoothing, flow along contours, outlines, cells.

Line drawing is a flow-guided difference of Gaussians (Kang et al. 2007, https://doi.org/10.1145/1274871.1274878),
flattening a soft Kuwahara filter (Papari et al. 2007, https://doi.org/10.1109/TIP.2007.903912) and cells are SLIC
superpixels (Achanta et al. 2012, https://doi.org/10.1109/TPAMI.2012.120), simplified to box filters and gathers.

Planes are float32 tensors (C, H, W) in 0..1 and maps are (H, W); H, W are pixels, N marks, K colours.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...images.colour import LUMA_601


def to_planes(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> float planes (3, H, W)."""
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()


def to_image(planes: Tensor) -> np.ndarray:
    """Float planes (3, H, W) -> uint8 (H, W, 3)."""
    return planes.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()


def luminance(planes: Tensor) -> Tensor:
    """Planes (3, H, W) -> luminance map (H, W)."""
    return torch.einsum("chw,c->hw", planes, torch.tensor(LUMA_601))


def saturate(planes: Tensor, amount: float) -> Tensor:
    """Multiply each pixel's distance from its own grey by `amount`."""
    grey = luminance(planes)
    return (grey + (planes - grey) * amount).clamp(0, 1)


def stretch(values: Tensor, low: float = 0.02, high: float = 0.98, strength: float = 1.0) -> Tensor:
    """Move the `low` and `high` quantiles of the picture's values to 0 and 1; `strength` blends with the input.

    Contrast is at most doubled, about a level that keeps white white and black black: a plain wall stays what it is.
    """
    flat = values.flatten()
    a, b = torch.quantile(flat[:: max(1, flat.numel() // 65536)], torch.tensor([low, high]))
    lacking = (0.5 - (b - a)).clamp_min(0)
    still = a / (1 - (b - a)).clamp_min(1e-3)  # 0 for a dark picture, 1 for a light one
    return torch.lerp(values, ((values - a + lacking * still) / (b - a + lacking).clamp_min(1e-3)).clamp(0, 1), strength)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, a smooth ramp between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of planes (C, H, W) or of a map (H, W)."""
    if x.dim() == 2:
        return blur(x[None], sigma)[0]
    radius = max(1, math.ceil(2.5 * sigma))
    kernel = torch.exp(-torch.arange(-radius, radius + 1).float().square() / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    x = F.conv2d(F.pad(x[:, None], (radius, radius, 0, 0), mode="replicate"), kernel[:, :, None, :])  # (C, 1, H, W)
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), kernel[:, :, :, None])[:, 0]


def flatten(planes: Tensor, radius: int, rounds: int = 2, sharpness: float = 4.0) -> Tensor:
    """Edge-aware smoothing: every pixel takes the mean of the calmest of the eight discs beside it (soft Kuwahara)."""
    for _ in range(rounds):
        lum = luminance(planes)[None]
        mean = blur(torch.cat([planes, lum * lum]), radius / 2)  # (4, H, W)
        calm = ((mean[3] - luminance(mean[:3]).square()).clamp_min(0) + 2e-4).pow(-sharpness / 2)
        padded = F.pad(torch.cat([mean[:3] * calm, calm[None]])[None], (radius,) * 4, mode="replicate")[0]
        total = torch.zeros_like(mean)
        for k in range(8):
            dy, dx = round(radius * math.sin(k * math.pi / 4)), round(radius * math.cos(k * math.pi / 4))
            total += padded[:, radius + dy :, radius + dx :][:, : mean.shape[1], : mean.shape[2]]
        planes = total[:3] / total[3]
    return planes


def noise(generator: np.random.Generator, shape: tuple[int, int], scale: float) -> Tensor:
    """Smooth noise map (H, W) of about unit deviation whose blobs are `scale` pixels wide."""
    coarse = [math.ceil(side / scale) + 2 for side in shape]
    field = torch.from_numpy(generator.standard_normal(coarse, dtype=np.float32))
    if scale <= 1:
        return field[: shape[0], : shape[1]]
    size = [round(side * scale) for side in coarse]
    return 1.3 * F.interpolate(field[None, None], size, mode="bicubic")[0, 0, : shape[0], : shape[1]]


def gradients(lum: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of a map (H, W): d/dy and d/dx."""
    return torch.gradient(lum)


def flow(lum: Tensor, sigma: float, swirl: Tensor | None = None, floor: float = 2e-4) -> Tensor:
    """Angle (H, W) along the picture's contours; where they are weak (tensor below `floor`), along those of `swirl`."""

    def doubled(m: Tensor) -> Tensor:
        gy, gx = gradients(m)
        return torch.stack([gx * gx - gy * gy, 2 * gx * gy])  # (2, H, W), twice the gradient's angle

    tensor = blur(doubled(blur(lum, 1.2)), sigma)
    if swirl is not None:
        tensor = tensor / (tensor.norm(dim=0) + floor)
        tensor = tensor + 0.5 * F.normalize(doubled(swirl), dim=0)
    return 0.5 * torch.atan2(tensor[1], tensor[0]) + math.pi / 2


def pixel_grid(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row and column coordinates, each (H, W)."""
    return torch.meshgrid(torch.arange(shape[0]).float(), torch.arange(shape[1]).float(), indexing="ij")


def warp(planes: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Planes sampled bilinearly at each pixel plus the displacement (dy, dx) in pixels."""
    height, width = planes.shape[1:]
    y, x = pixel_grid((height, width))
    grid = torch.stack([(x + dx + 0.5) * 2 / width - 1, (y + dy + 0.5) * 2 / height - 1], dim=-1)
    return F.grid_sample(planes[None], grid[None], padding_mode="border", align_corners=False)[0]


def along(values: Tensor, angle: Tensor, reach: int) -> Tensor:
    """Mean of a map over `reach` pixels each way along the angle: a line integral convolution on straight lines."""
    total = values.clone()
    for t in range(1, reach + 1):
        for sign in (-t, t):
            total += warp(values[None], sign * angle.sin(), sign * angle.cos())[0]
    return total / (2 * reach + 1)


def contours(planes: Tensor, sigma: float, reach: int = 4) -> Tensor:
    """Ink (H, W) in 0..1 on the dark side of edges in any of planes (C, H, W), in lines about 2 `sigma` wide.

    The threshold follows the picture's own contrast, so that a misty landscape is drawn like a sharp one.
    """
    band = (blur(planes, 1.6 * sigma) - blur(planes, sigma)).amax(0)  # (H, W)
    band = along(band, flow(planes.mean(0), 2 * sigma), reach)
    strong = torch.quantile(band.flatten()[:: max(1, band.numel() // 65536)], 0.96).clamp_min(0.015)
    return smoothstep(band / strong, 0.25, 0.85)


def opponent(planes: Tensor) -> Tensor:
    """sRGB planes (3, ...) -> Oklab (3, ...), https://bottosson.github.io/posts/oklab/ (gamma taken as 2.2)."""
    lms = torch.tensor([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    lab = torch.tensor([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    cones = torch.einsum("ij,j...->i...", lms, planes.clamp(0, 1).pow(2.2)).pow(1 / 3)
    return torch.einsum("ij,j...->i...", lab, cones)


def palette_distance(planes: Tensor, palette: Tensor, chroma: float) -> Tensor:
    """Squared Oklab distance (K, H, W) of each pixel to each colour of palette (K, 3), with a and b times `chroma`."""
    scale = torch.tensor([1.0, chroma, chroma])
    pixels = opponent(planes).flatten(1).T * scale  # (H*W, 3)
    colours = opponent(palette.T).T * scale  # (K, 3)
    return torch.cdist(colours, pixels).square().view(-1, *planes.shape[1:])


def towards(planes: Tensor, palette: Tensor, chroma: float, spread: float, amount: float = 1.0) -> Tensor:
    """Planes drawn by `amount` to the nearest colours of palette (K, 3), softly where several are within `spread`."""
    nearness = torch.softmax(-palette_distance(planes, palette, chroma) / spread, dim=0)  # (K, H, W)
    return torch.lerp(planes, torch.einsum("khw,kc->chw", nearness, palette), amount)


def boundaries(labels: Tensor, width: float) -> Tensor:
    """Antialiased lines (H, W) in 0..1, `width` pixels wide, between areas of different label (H, W)."""
    edge = torch.zeros(labels.shape)
    edge[:, 1:] += (labels[:, 1:] != labels[:, :-1]).float()
    edge[1:] += (labels[1:] != labels[:-1]).float()
    return smoothstep(blur(edge.clamp(max=1), width / 2.5), 0.12, 0.42)


def cells(planes: Tensor, pitch: float, fit: float, angle: Tensor | None, generator: np.random.Generator) -> Tensor:
    """Label (H, W) of the cell of each pixel, for cells about `pitch` pixels wide.

    `fit` is the pull of colour on the cells' borders (0 = straight ones). With `angle` (H, W) the cells are squares
    along it (Hausner 2001, https://doi.org/10.1145/383259.383327), else Voronoi polygons.
    """
    height, width = planes.shape[1:]
    rows, cols = math.ceil(height / pitch), math.ceil(width / pitch)
    y, x = pixel_grid((height, width))
    features = torch.cat([torch.stack([y, x]), planes * (fit * pitch)]).flatten(1)  # (5, H*W)
    home_row, home_col = (y.flatten() / pitch).long(), (x.flatten() / pitch).long()
    seed_y, seed_x = pixel_grid((rows, cols))
    jitter = torch.from_numpy(generator.random((2, rows, cols), dtype=np.float32)) - 0.5
    seeds = (torch.stack([seed_y, seed_x]) + 0.5 + 0.9 * jitter) * pitch  # (2, rows, cols)
    at = (seeds[0].long().clamp(max=height - 1) * width + seeds[1].long().clamp(max=width - 1)).flatten()
    centres = torch.cat([seeds.flatten(1), features[2:, at]])  # (5, N)
    for last in (False, False, True):
        best, labels = torch.full((height * width,), torch.inf), torch.zeros(height * width, dtype=torch.long)
        turn = None if angle is None else angle.flatten()[at]
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near = (home_row + dy).clamp(0, rows - 1) * cols + (home_col + dx).clamp(0, cols - 1)
                distance = _cell_distance(features - centres[:, near], None if turn is None else turn[near])
                closer = distance < best
                best, labels = torch.where(closer, distance, best), torch.where(closer, near, labels)
        if last:
            return labels.view(height, width)
        centres = means(features, labels, rows * cols)
        at = (centres[0].long().clamp(0, height - 1) * width + centres[1].long().clamp(0, width - 1)).flatten()


def _cell_distance(off: Tensor, turn: Tensor | None) -> Tensor:
    """Squared distance (P,) of offsets (y, x, colour) (5, P): round, or square along the angle turn (P,)."""
    if turn is None:
        return off.square().sum(0)
    sin, cos = turn.sin(), turn.cos()
    sides = torch.maximum((off[0] * sin + off[1] * cos).abs(), (off[0] * cos - off[1] * sin).abs())
    return sides.square() + off[2:].square().sum(0)


def means(values: Tensor, labels: Tensor, count: int) -> Tensor:
    """Mean of values (C, P) over the pixels of each label (P,) -> (C, count)."""
    total = torch.zeros(len(values), count).index_add_(1, labels, values)
    return total / torch.bincount(labels, minlength=count).clamp_min(1)


def emboss(relief: Tensor, depth: float) -> Tensor:
    """Shading (H, W) around 1 of a relief lit from the top left."""
    gy, gx = gradients(blur(relief, 0.7))
    return 1 + depth * (-gy - gx).clamp(-1, 1)
