"""Patterns: the marks of a style (strokes, dots, panes, facets, hatching, grain) on a square that repeats without a seam.

A mark that falls at random cannot be predicted, so a translator that learns from such marks gives the mean of all of them: no
mark. Here the random numbers are drawn once, for a square of PATTERN_SIDE pixels. The translator is shown that square
(`marks.guide`, which becomes the style's texture, ../../translator/texture.py) beside the photo: it only has to lay the marks
of the square over the photo's colours.

A pattern is a function without arguments -> Marks of the whole square. S is PATTERN_SIDE: maps are float32 (S, S), planes
(C, S, S), and all of them wrap around. N counts strokes, T points along a stroke, A points across it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .marks import PATTERN_SIDE, Marks, plain
from .operators import blur, gradients, pixel_grid, smoothstep

SQUARE = (PATTERN_SIDE, PATTERN_SIDE)


def wrapped_blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of a map (S, S) -> (S, S)."""
    margin = min(PATTERN_SIDE, int(4 * sigma) + 2)
    padded = F.pad(x[None, None], (margin,) * 4, mode="circular")[0]
    return blur(padded, sigma)[0, margin:-margin, margin:-margin]


def wrapped_gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of a map (S, S): d/dy and d/dx, each (S, S)."""
    dy, dx = gradients(F.pad(x[None, None], (1,) * 4, mode="circular")[0, 0])
    return dy[1:-1, 1:-1], dx[1:-1, 1:-1]


def grain(rng: np.random.Generator, scale: float) -> Tensor:
    """Noise (S, S) of standard deviation 1 whose blobs are about `scale` pixels wide."""
    field = wrapped_blur(torch.from_numpy(rng.standard_normal(SQUARE, dtype=np.float32)), scale / 2)
    return field / field.std()


def waves(rng: np.random.Generator, low: int, high: int, count: int = 14) -> Tensor:
    """A smooth map (S, S): the sum of `count` waves in random directions, each `low` to `high` times across the square."""
    y, x = (2 * torch.pi / PATTERN_SIDE * place for place in pixel_grid(SQUARE))
    total = torch.zeros(SQUARE)
    while count:
        ky, kx = rng.integers(-high, high + 1, 2)
        if low <= (ky**2 + kx**2) ** 0.5 <= high:
            total += torch.cos(float(ky) * y + float(kx) * x + float(rng.uniform(0, 2 * np.pi)))
            count -= 1
    return total


def wrapped_emboss(relief: Tensor, depth: float) -> Tensor:
    """Factor of brightness (S, S) around 1 of a relief (S, S) lit from the top left."""
    gy, gx = wrapped_gradients(wrapped_blur(relief, 1.0))
    return 1 + depth * (-gy - gx).clamp(-1, 1)


@dataclass(frozen=True)
class Strokes:
    """A pattern of brush strokes, in random order one over the other.

    Attributes:
        width: pixels.
        length: pixels.
        jitter: standard deviation of a stroke's brightness.
        hue: standard deviation of each of its channels.
        depth: of the impasto's relief.
        swirl: waves across the square (fewest, most); strokes run along their contours.
        steady: 0 to 1, pull of all strokes towards one slant.
        coverage: strokes over a pixel, on average.
        seed: of the random numbers.
    """

    width: float
    length: float
    jitter: float
    hue: float
    depth: float
    swirl: tuple[int, int] = (3, 5)
    steady: float = 0.0
    coverage: float = 4.0
    seed: int = 0

    def __call__(self) -> Marks:
        rng = np.random.default_rng(self.seed)
        angle = self._angle(rng)
        count = round(self.coverage * PATTERN_SIDE**2 / (self.width * self.length))
        start = rng.random((count, 2), dtype=np.float32) * PATTERN_SIDE  # (N, 2), y and x
        mark, place, points = self._topmost(start, angle)
        light = rng.normal(1, self.jitter, count).clip(0.4, 1.6)[mark]
        tint = rng.normal(0, self.hue, (count, 3))[mark].T
        across = np.linspace(-1, 1, points, dtype=np.float32)
        bristle = (rng.normal(0, 0.3, (count, points)) + 1.5 * np.sqrt(1.05 - across**2))[mark, place]
        middle = torch.from_numpy(start[mark].T.reshape(2, *SQUARE))
        half = PATTERN_SIDE / 2
        dy, dx = ((m - p + half) % PATTERN_SIDE - half for m, p in zip(middle, pixel_grid(SQUARE), strict=True))
        relief = torch.from_numpy(bristle.astype(np.float32)).view(SQUARE)
        bright = torch.from_numpy(light.astype(np.float32)).view(SQUARE) * wrapped_emboss(relief, self.depth)
        return Marks(dy, dx, bright, torch.from_numpy(tint.astype(np.float32)).view(3, *SQUARE), torch.zeros(SQUARE))

    def _angle(self, rng: np.random.Generator) -> np.ndarray:
        """Direction of the strokes at every pixel, radians (S, S): along the contours of waves, pulled towards the slant."""
        gy, gx = wrapped_gradients(waves(rng, *self.swirl))
        slant = np.deg2rad(35)
        doubled = torch.stack([gx * gx - gy * gy, 2 * gx * gy])  # twice the angle: a line has no front and back
        doubled = F.normalize(-doubled, dim=0) * (1 - self.steady)
        angle = torch.atan2(doubled[1] + self.steady * np.sin(2 * slant), doubled[0] + self.steady * np.cos(2 * slant))
        return (0.5 * angle).numpy()

    def _topmost(self, start: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The stroke on top at every pixel, of strokes that begin at start (N, 2) and follow angle (S, S).

        Returns:
            Number of the stroke (S * S), point across it (S * S), and how many points there are across a stroke (A).
        """
        half = max(2, round(self.length / 1.6))
        back, ahead = (_trace(start, angle, half, sign) for sign in (-1, 1))
        path = np.concatenate([back[:, ::-1], start[:, None], ahead], 1)  # (N, T, 2)
        across = np.linspace(-1, 1, max(5, round(self.width / 0.7)), dtype=np.float32)  # (A)
        tangent = np.gradient(path, axis=1)
        tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-6
        normal = np.stack([tangent[..., 1], -tangent[..., 0]], -1)
        taper = np.sqrt(1 - np.abs(np.linspace(-0.98, 0.98, path.shape[1], dtype=np.float32)) ** 3)  # (T)
        reach = self.width / 2 * taper[:, None] * across  # (T, A)
        spots = path[:, :, None] + normal[:, :, None] * reach[None, :, :, None]  # (N, T, A, 2)
        row, col = np.moveaxis(np.floor(spots).astype(np.int64) % PATTERN_SIDE, -1, 0)
        owner = np.zeros(PATTERN_SIDE**2, dtype=np.int64)  # stroke * A + point across; later strokes cover earlier ones
        numbers = np.arange(len(start))[:, None, None] * len(across) + np.arange(len(across))
        owner[(row * PATTERN_SIDE + col).ravel()] = np.broadcast_to(numbers, row.shape).ravel()
        return owner // len(across), owner % len(across), len(across)


def _trace(start: np.ndarray, angle: np.ndarray, steps: int, sign: int, spacing: float = 0.8) -> np.ndarray:
    """Follow angle (S, S) from start (N, 2), `spacing` pixels a step, without sharp turns -> points (N, steps, 2)."""
    point, heading, points = start, None, []
    for _ in range(steps):
        y, x = (point[:, i].astype(np.int64) % PATTERN_SIDE for i in range(2))
        step = np.stack([np.sin(angle[y, x]), np.cos(angle[y, x])], 1)
        turn = np.full(len(step), sign) if heading is None else np.where((step * heading).sum(1) < 0, -1, 1)
        heading = step * turn[:, None]
        point = point + spacing * heading
        points.append(point)
    return np.stack(points, 1).astype(np.float32)


def voronoi(across: int, jitter: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Voronoi cells around seeds that are off by `jitter` of a pitch from a grid of `across` x `across`.

    Returns:
        Four maps (S, S): number of the cell; dy and dx to its seed; pixels by which the second nearest seed is farther away.
    """
    pitch = PATTERN_SIDE / across
    seeds = torch.from_numpy(0.5 + jitter * (rng.random((2, across, across), dtype=np.float32) - 0.5))
    seeds[1] += 0.5 * (torch.arange(across) % 2)[:, None]  # every second row is shifted by half a cell: no straight lanes
    y, x = pixel_grid(SQUARE)
    home = [(y / pitch).long(), (x / pitch).long()]
    best, second = torch.full(SQUARE, torch.inf), torch.full(SQUARE, torch.inf)
    label, dy, dx = torch.zeros(SQUARE, dtype=torch.long), torch.zeros(SQUARE), torch.zeros(SQUARE)
    for oy in range(-2, 3):
        for ox in range(-2, 3):
            r, c = home[0] + oy, home[1] + ox
            near = (r % across) * across + c % across
            off_y, off_x = ((r + seeds[0].flatten()[near]) * pitch - y, (c + seeds[1].flatten()[near]) * pitch - x)
            far = (off_y.square() + off_x.square()).sqrt()
            closer = far < best
            second = torch.where(closer, best, torch.minimum(second, far))
            best = torch.where(closer, far, best)
            label, dy, dx = torch.where(closer, near, label), torch.where(closer, off_y, dy), torch.where(closer, off_x, dx)
    return label, dy, dx, second - best


def panes() -> Marks:
    """Irregular panes of about 34 pixels between lead lines, each of its own hue."""
    rng = np.random.default_rng(3)
    label, dy, dx, gap = voronoi(15, 0.85, rng)
    count = int(label.max()) + 1
    tint = torch.from_numpy(rng.normal(0, 0.07, (3, count)).astype(np.float32))[:, label]
    light = torch.from_numpy(rng.normal(1, 0.12, count).astype(np.float32))[label] * (1.08 - 0.3 * torch.exp(-gap / 7))
    return Marks(dy, dx, light, tint, 1 - smoothstep(gap, 2.5, 5.5))


def facets() -> Marks:
    """Large angular facets, shaded from edge to edge; each shows the picture a few pixels out of place."""
    rng = np.random.default_rng(5)
    label, dy, dx, gap = voronoi(9, 0.95, rng)
    count = int(label.max()) + 1
    turn = torch.from_numpy(rng.uniform(0, 2 * np.pi, count).astype(np.float32))[label]
    slope = (dy * turn.sin() + dx * turn.cos()) / 34
    level = torch.from_numpy(rng.normal(1, 0.10, count).astype(np.float32))[label]
    shift = torch.from_numpy(rng.uniform(-9, 9, (2, count)).astype(np.float32))[:, label]
    tint = torch.from_numpy(rng.normal(0, 0.03, (3, count)).astype(np.float32))[:, label]
    return Marks(shift[0], shift[1], level * (1 + 0.34 * slope.clamp(-1, 1)), tint, 0.75 * (1 - smoothstep(gap, 0.8, 3.0)))


def dots() -> Marks:
    """Dots of 15 pixels in warm and cool hues; `line` is the ground between them."""
    rng = np.random.default_rng(7)
    label, dy, dx, _ = voronoi(31, 0.6, rng)
    count = int(label.max()) + 1
    hues = rng.normal(0, 0.13, (3, count))
    tint = torch.from_numpy((hues - hues.mean(0)).astype(np.float32))[:, label]
    far = (dy.square() + dx.square()).sqrt()
    line = smoothstep(far, 6.4, 8.6)
    light = torch.from_numpy(rng.normal(1, 0.06, count).astype(np.float32))[label]
    shown = ((0.5 + tint) * light).clamp(0, 1) * (1 - line) + 0.9 * line
    return Marks(dy, dx, light, tint, line, {"guide": shown})


def hatching() -> Marks:
    """Hand-drawn strokes in two directions: ridges `first` and `second`, 0 to 1; and `tooth`, the roughness of the paper."""
    rng = np.random.default_rng(11)
    y, x = pixel_grid(SQUARE)
    maps = {}
    for name, sign in (("first", 1), ("second", -1)):
        lines = 24 / PATTERN_SIDE  # along each axis: 45 degrees, 15 pixels from stroke to stroke, seamless
        u = (x + sign * y) * lines + 0.06 * waves(rng, 2, 6)
        whole = torch.floor(u)
        v = (y - sign * x) / PATTERN_SIDE * 6 + 0.618 * whole + 0.04 * waves(rng, 3, 8)
        pressure = 0.35 + 0.65 * smoothstep(torch.frac(v) % 1, 0.0, 0.2) * (1 - smoothstep(torch.frac(v) % 1, 0.75, 1.0))
        maps[name] = (1 - (torch.remainder(u, 1) - 0.5).abs() * 2) * (0.55 + 0.45 * pressure)
    maps["tooth"] = grain(rng, 3.0)
    shown = torch.stack([1 - 0.8 * maps["first"], 1 - 0.8 * maps["second"], torch.full(SQUARE, 0.6)])
    return replace(plain(), more={**maps, "guide": shown})


def coal() -> Marks:
    """`tooth`: streaks of rubbed coal and the roughness of the paper."""
    rng = np.random.default_rng(13)
    streak = wrapped_blur(torch.from_numpy(rng.standard_normal(SQUARE, dtype=np.float32)), 2.4)
    rows = torch.arange(PATTERN_SIDE)
    total = torch.zeros(SQUARE)
    for t in range(-18, 19):  # a mean along the slant: broad streaks
        total += streak[(rows[:, None] + t) % PATTERN_SIDE, (rows[None] - t) % PATTERN_SIDE]
    tooth = total / total.std() + 0.5 * grain(rng, 3.0)
    return replace(plain(), more={"tooth": tooth, "guide": (0.5 + 0.16 * tooth).clamp(0, 1).expand(3, -1, -1)})


def washes() -> Marks:
    """`density`: blooms and granulation of watercolour; dy, dx: how far the wash strays from the drawing."""
    rng = np.random.default_rng(17)
    bloom = grain(rng, 70)
    edge = wrapped_blur(1 - smoothstep((bloom - 0.4).abs(), 0.03, 0.12), 0.8)  # the rim where a wash dried
    spread = grain(rng, 9)
    density = 0.20 * bloom + 0.28 * edge + 0.10 * spread + 0.05 * grain(rng, 3)
    shown = (0.55 - 0.45 * density).clamp(0, 1).expand(3, -1, -1)
    stray = [5 * grain(rng, 30) for _ in range(2)]
    return replace(plain(), dy=stray[0], dx=stray[1], more={"density": density, "guide": shown})


@dataclass(frozen=True)
class Halftone:
    """A halftone screen of dots at 45 degrees. `cover` is the coverage, 0 to 1, from which on a pixel is inked.

    Attributes:
        period: pixels between the dots of a row; PATTERN_SIDE must be a multiple of it.
    """

    period: int

    def __post_init__(self) -> None:
        if PATTERN_SIDE % self.period:
            raise ValueError(f"period {self.period} leaves a seam: it must divide {PATTERN_SIDE}")

    def __call__(self) -> Marks:
        y, x = pixel_grid(SQUARE)
        wave = torch.cos(2 * torch.pi * (x + y) / self.period) + torch.cos(2 * torch.pi * (x - y) / self.period)
        cover = 0.5 + wave / 4
        return replace(plain(), more={"cover": cover, "guide": smoothstep(cover, 0.4, 0.6).expand(3, -1, -1)})


def curls() -> Marks:
    """Curling lines of an ornament, 4 to 5 pixels wide."""
    field = waves(np.random.default_rng(19), 5, 10, 20)
    gy, gx = wrapped_gradients(field)
    steep = (gy.square() + gx.square()).sqrt().clamp_min(0.05)
    far = torch.stack([(field - level).abs() / steep for level in (-2.4, 0.0, 2.4)]).amin(0)  # pixels to the nearest line
    line = 1 - smoothstep(far, 1.8, 3.4)
    return replace(plain(), line=line, more={"guide": (0.7 * (1 - line)).expand(3, -1, -1)})


def woodgrain() -> Marks:
    """The grain of a woodblock: long horizontal streaks."""
    rng = np.random.default_rng(23)
    rows = torch.arange(PATTERN_SIDE)
    field = wrapped_blur(torch.from_numpy(rng.standard_normal(SQUARE, dtype=np.float32)), 1.3)
    streak = torch.stack([field[:, (rows + t) % PATTERN_SIDE] for t in range(-24, 25)]).mean(0)
    return replace(plain(), light=1 + 0.07 * streak / streak.std())
