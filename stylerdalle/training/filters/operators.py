"""Operators that the filters share: colours, smoothing, flow along contours, outlines, superpixels.

Line drawing is a flow-guided difference of Gaussians (Kang et al. 2007, https://doi.org/10.1145/1274871.1274878),
flattening a soft Kuwahara filter (Papari et al. 2007, https://doi.org/10.1109/TIP.2007.903912), and superpixels are SLIC
(Achanta et al. 2012, https://doi.org/10.1109/TPAMI.2012.120); all are simplified to Gaussian blurs and gathers.

Planes are float32 tensors (C, H, W) in [0, 1], maps are (H, W). H, W count pixels, P is H * W, N counts superpixels and K
colours of a palette.
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


def planes_to_image(planes: Tensor) -> np.ndarray:
    """Float planes (3, H, W) -> uint8 (H, W, 3)."""
    return planes.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()


def luminance(planes: Tensor) -> Tensor:
    """Planes (3, H, W) -> brightness (H, W), by LUMA_601."""
    return torch.einsum("chw,c->hw", planes, torch.tensor(LUMA_601))


def saturate(planes: Tensor, amount: float) -> Tensor:
    """Planes (3, H, W) with each pixel's distance from its own grey multiplied by `amount`."""
    grey = luminance(planes)
    return (grey + (planes - grey) * amount).clamp(0, 1)


def stretch(values: Tensor, low: float = 0.02, high: float = 0.98, strength: float = 1.0) -> Tensor:
    """Raise the contrast: the `low` and `high` quantiles of the values (any shape) move to 0 and 1.

    Contrast is at most doubled, and black stays black, white white: a plain wall does not change. `strength` 0 to 1 blends the
    result with the input.
    """
    flat = values.flatten()
    a, b = torch.quantile(flat[:: max(1, flat.numel() // 65536)], torch.tensor([low, high]))
    lacking = (0.5 - (b - a)).clamp_min(0)
    still = a / (1 - (b - a)).clamp_min(1e-3)  # 0 for a dark picture, 1 for a light one
    return torch.lerp(values, ((values - a + lacking * still) / (b - a + lacking).clamp_min(1e-3)).clamp(0, 1), strength)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, a smooth ramp between; any shape."""
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
    """Smooth planes (3, H, W) but keep edges: a pixel takes the mean of the least varied of eight discs around it (Kuwahara).

    The choice is soft: discs are weighted by their variance to the power of -`sharpness` / 2.
    """
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


def noise(generator: np.random.Generator, shape: tuple[int, ...], scale: float) -> Tensor:
    """Smooth noise (H, W) of standard deviation about 1 whose blobs are `scale` pixels wide."""
    coarse = [math.ceil(side / scale) + 2 for side in shape]
    field = torch.from_numpy(generator.standard_normal(coarse, dtype=np.float32))
    if scale <= 1:
        return field[: shape[0], : shape[1]]
    size = [round(side * scale) for side in coarse]
    return 1.3 * F.interpolate(field[None, None], size, mode="bicubic")[0, 0, : shape[0], : shape[1]]


def gradients(lum: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of a map (H, W): d/dy and d/dx."""
    dy, dx = torch.gradient(lum)
    return dy, dx


def flow(lum: Tensor, sigma: float, swirl: Tensor | None = None, floor: float = 2e-4) -> Tensor:
    """Angle (H, W), radians, along the contours of lum (H, W), smoothed over `sigma` pixels.

    Where they are weak (structure tensor below `floor`) it follows the contours of swirl (H, W).
    """

    def doubled(m: Tensor) -> Tensor:
        gy, gx = gradients(m)
        return torch.stack([gx * gx - gy * gy, 2 * gx * gy])  # (2, H, W), twice the gradient's angle

    tensor = blur(doubled(blur(lum, 1.2)), sigma)
    if swirl is not None:
        tensor = tensor / (tensor.norm(dim=0) + floor)
        tensor = tensor + 0.5 * F.normalize(doubled(swirl), dim=0)
    return 0.5 * torch.atan2(tensor[1], tensor[0]) + math.pi / 2


def pixel_grid(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, each float (H, W)."""
    y, x = torch.meshgrid(torch.arange(shape[0]).float(), torch.arange(shape[1]).float(), indexing="ij")
    return y, x


def warp(planes: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Planes (C, H, W) sampled bilinearly at each pixel plus the displacement dy, dx (H, W) in pixels."""
    height, width = planes.shape[1:]
    y, x = pixel_grid((height, width))
    grid = torch.stack([(x + dx + 0.5) * 2 / width - 1, (y + dy + 0.5) * 2 / height - 1], dim=-1)
    return F.grid_sample(planes[None], grid[None], padding_mode="border", align_corners=False)[0]


def along(values: Tensor, angle: Tensor, reach: int) -> Tensor:
    """Mean of a map (H, W) over `reach` pixels in both directions of angle (H, W), on straight lines."""
    total = values.clone()
    for t in range(1, reach + 1):
        for sign in (-t, t):
            total += warp(values[None], sign * angle.sin(), sign * angle.cos())[0]
    return total / (2 * reach + 1)


def contours(planes: Tensor, sigma: float, reach: int = 4) -> Tensor:
    """Outlines (H, W) in [0, 1] on the dark side of edges in any of planes (C, H, W), about 2 `sigma` pixels wide.

    The threshold follows the picture's contrast, so that a misty landscape gets outlines like a sharp one.
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
    """Move planes (3, H, W) by `amount` (0 to 1) towards the nearest colours of palette (K, 3).

    The choice is soft: a softmax over squared distances divided by `spread`.
    """
    nearness = torch.softmax(-palette_distance(planes, palette, chroma) / spread, dim=0)  # (K, H, W)
    return torch.lerp(planes, torch.einsum("khw,kc->chw", nearness, palette), amount)


def boundaries(labels: Tensor, width: float) -> Tensor:
    """Antialiased lines (H, W) in [0, 1], `width` pixels wide, between areas of different labels (H, W)."""
    edge = torch.zeros(labels.shape)
    edge[:, 1:] += (labels[:, 1:] != labels[:, :-1]).float()
    edge[1:] += (labels[1:] != labels[:-1]).float()
    return smoothstep(blur(edge.clamp(max=1), width / 2.5), 0.12, 0.42)


def superpixels(planes: Tensor, pitch: float, fit: float, angle: Tensor | None, generator: np.random.Generator) -> Tensor:
    """Number (H, W) of the superpixel of each pixel of planes (3, H, W); superpixels are about `pitch` pixels wide.

    `fit` says how far their borders follow colours (0: straight borders). With `angle` (H, W) they are squares along it
    (Hausner 2001, https://doi.org/10.1145/383259.383327), without it Voronoi polygons.
    """
    height, width = planes.shape[1:]
    rows, cols = math.ceil(height / pitch), math.ceil(width / pitch)
    y, x = pixel_grid((height, width))
    features = torch.cat([torch.stack([y, x]), planes * (fit * pitch)]).flatten(1)  # (5, P)
    home = torch.stack([y, x]).flatten(1).div(pitch).long()  # (2, P), row and column of the nearest centre at first
    seeds = torch.stack(pixel_grid((rows, cols))) + 0.5  # (2, rows, cols)
    jitter = torch.from_numpy(generator.random((2, rows, cols), dtype=np.float32)) - 0.5
    centres = ((seeds + 0.9 * jitter) * pitch).flatten(1)  # (2, N)
    at = _pixel_of(centres, height, width)  # (N)
    centres = torch.cat([centres, features[2:, at]])  # (5, N)
    for _ in range(2):
        labels = _nearest(features, centres, home, (rows, cols), None if angle is None else angle.flatten()[at])
        centres = means(features, labels, rows * cols)
        at = _pixel_of(centres, height, width)
    labels = _nearest(features, centres, home, (rows, cols), None if angle is None else angle.flatten()[at])
    return labels.view(height, width)


def _pixel_of(centres: Tensor, height: int, width: int) -> Tensor:
    """Index (N) of the pixel under each centre (2 or more, N) whose first rows are y and x."""
    return centres[0].long().clamp(0, height - 1) * width + centres[1].long().clamp(0, width - 1)


def _nearest(features: Tensor, centres: Tensor, home: Tensor, grid: tuple[int, int], turn: Tensor | None) -> Tensor:
    """Number (P) of the centre (5, N) nearest to each pixel's features (5, P), among the nine around its place on the grid.

    `home` (2, P) is that place, `turn` (N) the angle of each superpixel that is a square.
    """
    rows, cols = grid
    best, labels = torch.full(home.shape[1:], torch.inf), torch.zeros(home.shape[1:], dtype=torch.long)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near = (home[0] + dy).clamp(0, rows - 1) * cols + (home[1] + dx).clamp(0, cols - 1)
            distance = _seed_distance(features - centres[:, near], None if turn is None else turn[near])
            closer = distance < best
            best, labels = torch.where(closer, distance, best), torch.where(closer, near, labels)
    return labels


def _seed_distance(off: Tensor, turn: Tensor | None) -> Tensor:
    """Squared distance (P,) of offsets (5, P) (y, x, three of colour): Euclidean, or with turn (P,) of squares at that angle."""
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
    """Factor of brightness (H, W) around 1 of a relief (H, W) lit from the top left."""
    gy, gx = gradients(blur(relief, 0.7))
    return 1 + depth * (-gy - gx).clamp(-1, 1)
