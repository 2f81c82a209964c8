"""Textures: the marks of a style (strokes, dots, panes, facets, hatching, grain) on a tile that repeats without a seam.

A mark that falls by chance cannot be foretold, so a translator that learns it gives the mean of all chances: none. Here the
chance is drawn once, on a tile of SIDE pixels, and the translator is shown the tile (`guide`, which becomes the style's
texture, ../../texture.py) beside the photo: it then only has to lay the tile's marks over the photo's colours.

Planes are float32 (C, SIDE, SIDE) or maps (SIDE, SIDE); all of them wrap around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .strokes import blur, gradients, pixel_grid, smoothstep, warp

SIDE = 512  # pixels of a tile: 64 tokens


@dataclass(frozen=True)
class Marks:
    """Marks at the pixels of a tile, or of a picture that lies somewhere on it.

    Attributes:
        dy, dx: from a pixel to the middle of its mark, whose colour the mark has.
        light: factor of brightness, of the mark and of its relief.
        tint: (3, H, W), what the mark adds to each channel.
        line: 0 to 1, where a line or gap is drawn over all: lead, the ground between dots.
        more: other maps that one filter alone uses.
    """

    dy: Tensor
    dx: Tensor
    light: Tensor
    tint: Tensor
    line: Tensor
    more: dict[str, Tensor] = field(default_factory=dict)

    def at(self, place: tuple[int, int], shape: tuple[int, int]) -> Marks:
        """The part under a picture (H, W) whose top left pixel is at `place` (y, x) of the tile."""
        rows, columns = ((torch.arange(n) + p) % SIDE for p, n in zip(place, shape, strict=True))

        def cut(x: Tensor) -> Tensor:
            return x[..., rows, :][..., columns]

        more = {name: cut(x) for name, x in self.more.items()}
        return Marks(cut(self.dy), cut(self.dx), cut(self.light), cut(self.tint), cut(self.line), more)


def guide(marks: Marks) -> Tensor:
    """What a style's texture shows (3, H, W): the marks on a plain middle grey."""
    if "guide" in marks.more:
        return marks.more["guide"]
    return ((0.5 + marks.tint) * marks.light).clamp(0, 1) * (1 - marks.line)


def plain(shape: tuple[int, int] = (SIDE, SIDE)) -> Marks:
    """No marks at all."""
    zero = torch.zeros(shape)
    return Marks(zero, zero, torch.ones(shape), zero.expand(3, -1, -1), zero)


def lay(colours: Tensor, marks: Marks, tolerance: float) -> Tensor:
    """Colours (3, H, W) in marks: each has the colour at its middle, but where the pixel's own differs by more than `tolerance`
    (summed over channels), so that contours stay."""
    there = warp(colours, marks.dy, marks.dx)
    near = (there - colours).abs().sum(0) < tolerance
    return ((torch.where(near, there, colours) + marks.tint) * marks.light).clamp(0, 1)


def wrapped_blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of a tile's map or planes."""
    margin = min(SIDE, int(4 * sigma) + 2)
    planes = x if x.ndim == 3 else x[None]
    out = blur(F.pad(planes[None], (margin,) * 4, mode="circular")[0], sigma)[:, margin:-margin, margin:-margin]
    return out if x.ndim == 3 else out[0]


def grain(rng: np.random.Generator, scale: float) -> Tensor:
    """Noise of unit deviation whose blobs are about `scale` pixels wide."""
    field = wrapped_blur(torch.from_numpy(rng.standard_normal((SIDE, SIDE), dtype=np.float32)), scale / 2)
    return field / field.std()


def waves(rng: np.random.Generator, low: int, high: int, count: int = 14) -> Tensor:
    """A smooth map of crossing waves, `low` to `high` of them across the tile."""
    y, x = (2 * torch.pi / SIDE * place for place in pixel_grid((SIDE, SIDE)))
    total = torch.zeros(SIDE, SIDE)
    while count:
        ky, kx = rng.integers(-high, high + 1, 2)
        if low <= (ky**2 + kx**2) ** 0.5 <= high:
            total += torch.cos(float(ky) * y + float(kx) * x + float(rng.uniform(0, 2 * np.pi)))
            count -= 1
    return total


def shading(relief: Tensor, depth: float) -> Tensor:
    """Factor around 1 of a relief lit from the top left."""
    gy, gx = gradients(F.pad(wrapped_blur(relief, 1.0)[None, None], (1,) * 4, mode="circular")[0, 0])
    return 1 + depth * (-gy - gx)[1:-1, 1:-1].clamp(-1, 1)


@dataclass(frozen=True)
class Strokes:
    """Brush strokes: width and length in pixels, deviations of brightness and of each channel, depth of the impasto."""

    width: float
    length: float
    jitter: float
    hue: float
    depth: float
    swirl: tuple[int, int] = (3, 5)  # waves across the tile along whose contours they run
    steady: float = 0.0  # pull of the slant towards one direction, 0 to 1
    coverage: float = 4.0  # strokes over a pixel
    seed: int = 0

    def __call__(self) -> Marks:
        rng = np.random.default_rng(self.seed)
        gy, gx = gradients(F.pad(waves(rng, *self.swirl)[None, None], (1,) * 4, mode="circular")[0, 0])
        slant = np.deg2rad(35)
        doubled = torch.stack([gx * gx - gy * gy, 2 * gx * gy])[:, 1:-1, 1:-1]
        doubled = F.normalize(-doubled, dim=0) * (1 - self.steady)
        angle = 0.5 * torch.atan2(doubled[1] + self.steady * np.sin(2 * slant), doubled[0] + self.steady * np.cos(2 * slant))
        count = round(self.coverage * SIDE**2 / (self.width * self.length))
        start = rng.random((count, 2), dtype=np.float32) * SIDE
        half = max(2, round(self.length / 1.6))
        back, ahead = (_trace(start, angle.numpy(), half, sign) for sign in (-1, 1))
        path = np.concatenate([back[:, ::-1], start[:, None], ahead], 1)  # (N, T, 2)
        across = np.linspace(-1, 1, max(5, round(self.width / 0.7)), dtype=np.float32)  # (A,)
        tangent = np.gradient(path, axis=1)
        tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-6
        normal = np.stack([tangent[..., 1], -tangent[..., 0]], -1)
        taper = np.sqrt(1 - np.abs(np.linspace(-0.98, 0.98, path.shape[1], dtype=np.float32)) ** 3)
        reach = self.width / 2 * taper[:, None] * across  # (T, A)
        spots = path[:, :, None] + normal[:, :, None] * reach[None, :, :, None]  # (N, T, A, 2)
        row, col = np.moveaxis(np.floor(spots).astype(np.int64) % SIDE, -1, 0)
        owner = np.zeros(SIDE * SIDE, dtype=np.int64)  # the topmost stroke * A + place across it
        owner[(row * SIDE + col).ravel()] = np.broadcast_to(
            np.arange(count)[:, None, None] * len(across) + np.arange(len(across)), row.shape
        ).ravel()
        mark, place = owner // len(across), owner % len(across)
        light = rng.normal(1, self.jitter, count).clip(0.4, 1.6)[mark]
        tint = rng.normal(0, self.hue, (count, 3))[mark].T
        bristle = (rng.normal(0, 0.3, (count, len(across))) + 1.5 * np.sqrt(1.05 - across**2))[mark, place]
        middle = torch.from_numpy(start[mark].T.reshape(2, SIDE, SIDE))
        dy, dx = ((m - p + SIDE / 2) % SIDE - SIDE / 2 for m, p in zip(middle, pixel_grid((SIDE, SIDE)), strict=True))
        relief = torch.from_numpy(bristle.astype(np.float32)).view(SIDE, SIDE)
        bright = torch.from_numpy(light.astype(np.float32)).view(SIDE, SIDE) * shading(relief, self.depth)
        return Marks(dy, dx, bright, torch.from_numpy(tint.astype(np.float32)).view(3, SIDE, SIDE), torch.zeros(SIDE, SIDE))


def _trace(start: np.ndarray, angle: np.ndarray, steps: int, sign: int, spacing: float = 0.8) -> np.ndarray:
    """Follow the line field from start (N, 2) -> points (N, steps, 2), keeping on rather than turning back."""
    point, heading, points = start, None, []
    for _ in range(steps):
        y, x = (point[:, i].astype(np.int64) % SIDE for i in range(2))
        step = np.stack([np.sin(angle[y, x]), np.cos(angle[y, x])], 1)
        turn = np.full(len(step), sign) if heading is None else np.where((step * heading).sum(1) < 0, -1, 1)
        heading = step * turn[:, None]
        point = point + spacing * heading
        points.append(point)
    return np.stack(points, 1).astype(np.float32)


def cells(across: int, jitter: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Voronoi cells around seeds that stray by `jitter` from a grid of `across` x `across`.

    Returns:
        Label, dy and dx to the cell's seed, and by how much the second nearest seed is farther away: maps of the tile.
    """
    pitch = SIDE / across
    seeds = torch.from_numpy(0.5 + jitter * (rng.random((2, across, across), dtype=np.float32) - 0.5))
    seeds[1] += 0.5 * (torch.arange(across) % 2)[:, None]  # every other row half a cell on: no straight alleys
    y, x = pixel_grid((SIDE, SIDE))
    home = [(y / pitch).long(), (x / pitch).long()]
    best, second = torch.full((SIDE, SIDE), torch.inf), torch.full((SIDE, SIDE), torch.inf)
    label, dy, dx = torch.zeros(SIDE, SIDE, dtype=torch.long), torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE)
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
    label, dy, dx, gap = cells(15, 0.85, rng)
    count = int(label.max()) + 1
    tint = torch.from_numpy(rng.normal(0, 0.07, (3, count)).astype(np.float32))[:, label]
    light = torch.from_numpy(rng.normal(1, 0.12, count).astype(np.float32))[label] * (1.08 - 0.3 * torch.exp(-gap / 7))
    return Marks(dy, dx, light, tint, 1 - smoothstep(gap, 2.5, 5.5))


def facets() -> Marks:
    """Large angular facets shaded from edge to edge, each showing the picture a little out of its place."""
    rng = np.random.default_rng(5)
    label, dy, dx, gap = cells(9, 0.95, rng)
    count = int(label.max()) + 1
    turn = torch.from_numpy(rng.uniform(0, 2 * np.pi, count).astype(np.float32))[label]
    slope = (dy * turn.sin() + dx * turn.cos()) / 34
    level = torch.from_numpy(rng.normal(1, 0.10, count).astype(np.float32))[label]
    shift = torch.from_numpy(rng.uniform(-9, 9, (2, count)).astype(np.float32))[:, label]
    tint = torch.from_numpy(rng.normal(0, 0.03, (3, count)).astype(np.float32))[:, label]
    return Marks(shift[0], shift[1], level * (1 + 0.34 * slope.clamp(-1, 1)), tint, 0.75 * (1 - smoothstep(gap, 0.8, 3.0)))


def dots() -> Marks:
    """Dots of 15 pixels in warm and cool hues, the ground between them."""
    rng = np.random.default_rng(7)
    label, dy, dx, _ = cells(31, 0.6, rng)
    count = int(label.max()) + 1
    hues = rng.normal(0, 0.13, (3, count))
    tint = torch.from_numpy((hues - hues.mean(0)).astype(np.float32))[:, label]
    far = (dy.square() + dx.square()).sqrt()
    line = smoothstep(far, 6.4, 8.6)
    light = torch.from_numpy(rng.normal(1, 0.06, count).astype(np.float32))[label]
    shown = ((0.5 + tint) * light).clamp(0, 1) * (1 - line) + 0.9 * line
    return Marks(dy, dx, light, tint, line, {"guide": shown})


def hatching() -> Marks:
    """Two directions of hand-drawn strokes, ridges 0 to 1 in `more`: `first` and `second`; and the paper's tooth."""
    rng = np.random.default_rng(11)
    y, x = pixel_grid((SIDE, SIDE))
    maps = {}
    for name, sign in (("first", 1), ("second", -1)):
        lines = 24 / SIDE  # along each axis: 45 degrees, 15 pixels from stroke to stroke, seamless
        u = (x + sign * y) * lines + 0.06 * waves(rng, 2, 6)
        whole = torch.floor(u)
        v = (y - sign * x) / SIDE * 6 + 0.618 * whole + 0.04 * waves(rng, 3, 8)
        pressure = 0.35 + 0.65 * smoothstep(torch.frac(v) % 1, 0.0, 0.2) * (1 - smoothstep(torch.frac(v) % 1, 0.75, 1.0))
        maps[name] = (1 - (torch.remainder(u, 1) - 0.5).abs() * 2) * (0.55 + 0.45 * pressure)
    maps["tooth"] = grain(rng, 3.0)
    none = plain()
    shown = torch.stack([1 - 0.8 * maps["first"], 1 - 0.8 * maps["second"], torch.full((SIDE, SIDE), 0.6)])
    return Marks(none.dy, none.dx, none.light, none.tint, none.line, {**maps, "guide": shown})


def coal() -> Marks:
    """Streaks and tooth of rubbed coal."""
    rng = np.random.default_rng(13)
    streak = wrapped_blur(torch.from_numpy(rng.standard_normal((SIDE, SIDE), dtype=np.float32)), 2.4)
    rows = torch.arange(SIDE)
    total = torch.zeros(SIDE, SIDE)
    for t in range(-18, 19):  # a mean along the slant: broad streaks
        total += streak[(rows[:, None] + t) % SIDE, (rows[None] - t) % SIDE]
    tooth = total / total.std() + 0.5 * grain(rng, 3.0)
    none = plain()
    shown = (0.5 + 0.16 * tooth).clamp(0, 1).expand(3, -1, -1)
    return Marks(none.dy, none.dx, none.light, none.tint, none.line, {"tooth": tooth, "guide": shown})


def washes() -> Marks:
    """Blooms and granulation of watercolour, and how far the wash strays from the drawing."""
    rng = np.random.default_rng(17)
    bloom = grain(rng, 70)
    edge = wrapped_blur(1 - smoothstep((bloom - 0.4).abs(), 0.03, 0.12), 0.8)  # the rim where a wash dried
    spread = grain(rng, 9)
    density = 0.20 * bloom + 0.28 * edge + 0.10 * spread + 0.05 * grain(rng, 3)
    none = plain()
    shown = (0.55 - 0.45 * density).clamp(0, 1).expand(3, -1, -1)
    return Marks(5 * grain(rng, 30), 5 * grain(rng, 30), none.light, none.tint, none.line, {"density": density, "guide": shown})


def screen(period: int = 16) -> Marks:
    """A halftone screen of dots at 45 degrees, `period` pixels apart in a row: the coverage at which each pixel is inked."""
    y, x = pixel_grid((SIDE, SIDE))
    wave = torch.cos(2 * torch.pi * (x + y) / period) + torch.cos(2 * torch.pi * (x - y) / period)
    cover = 0.5 + wave / 4
    none = plain()
    shown = smoothstep(cover, 0.4, 0.6).expand(3, -1, -1)
    return Marks(none.dy, none.dx, none.light, none.tint, none.line, {"cover": cover, "guide": shown})


def curls() -> Marks:
    """Whiplash lines of an ornament, 4 to 5 pixels wide."""
    field = waves(np.random.default_rng(19), 5, 10, 20)
    gy, gx = gradients(F.pad(field[None, None], (1,) * 4, mode="circular")[0, 0])
    steep = (gy.square() + gx.square()).sqrt()[1:-1, 1:-1].clamp_min(0.05)
    far = torch.stack([(field - level).abs() / steep for level in (-2.4, 0.0, 2.4)]).amin(0)  # pixels to the nearest line
    line = 1 - smoothstep(far, 1.8, 3.4)
    none = plain()
    return Marks(none.dy, none.dx, none.light, none.tint, line, {"guide": (0.7 * (1 - line)).expand(3, -1, -1)})


def block() -> Marks:
    """The grain of a woodblock: long level streaks."""
    rng = np.random.default_rng(23)
    rows = torch.arange(SIDE)
    field = wrapped_blur(torch.from_numpy(rng.standard_normal((SIDE, SIDE), dtype=np.float32)), 1.3)
    streak = torch.stack([field[:, (rows + t) % SIDE] for t in range(-24, 25)]).mean(0)
    none = plain()
    return Marks(none.dy, none.dx, 1 + 0.07 * streak / streak.std(), none.tint, none.line)


TEXTURES: dict[str, Callable[[], Marks]] = {
    "van_gogh": Strokes(9, 54, 0.17, 0.035, 0.32, swirl=(1, 4), steady=0.2, seed=1),
    "impressionism": Strokes(11, 24, 0.09, 0.05, 0.20, swirl=(3, 7), steady=0.45, seed=2),
    "fauvism": Strokes(17, 52, 0.10, 0.035, 0.14, swirl=(2, 4), steady=0.3, seed=3),
    "baroque": Strokes(8, 40, 0.07, 0.012, 0.12, swirl=(2, 4), steady=0.6, seed=4),
    "pointillism": dots,
    "stained_glass": panes,
    "cubism": facets,
    "watercolour": washes,
    "pencil_sketch": hatching,
    "ink": hatching,
    "charcoal": coal,
    "comic": screen,
    "pop_art": lambda: screen(32),
    "art_nouveau": curls,
    "ukiyo_e": block,
}


@lru_cache(maxsize=32)
def marks_of(name: str) -> Marks:
    """The tile of a filter; plain where the filter has no texture."""
    return TEXTURES[name]() if name in TEXTURES else plain()
