"""A plot of a run's curve.csv, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

Point = tuple[float, float]
LEFT, RIGHT, TOP, BOTTOM = 40, 20, 28, 18  # px between a panel's edge and its frame


def draw_curve(rows: Sequence[Mapping[str, Any]], x: str = "step", size: tuple[int, int] = (640, 150)) -> Image.Image:
    """Every column of `rows` against column `x`, one panel of `size` px (width, height) each, one below the other.

    Blank values and NaN are left out.
    """
    names = [name for name in rows[0] if name != x]
    width, height = size
    image = Image.new("RGB", (width, height * len(names)), "white")
    draw = ImageDraw.Draw(image)
    xs = [float(row[x]) for row in rows]
    for panel, name in enumerate(names):
        points = [(a, float(row[name])) for a, row in zip(xs, rows, strict=True) if row.get(name) not in ("", None)]
        points = [(a, value) for a, value in points if value == value]  # not NaN
        if points:
            _draw_panel(draw, name, points, (xs[0], xs[-1]), panel * height, size)
    return image


def _draw_panel(
    draw: ImageDraw.ImageDraw, name: str, points: Sequence[Point], limits: Point, top: int, size: tuple[int, int]
) -> None:
    """Draw points (x, y) as a line in a frame `top` px from the picture's top edge; `limits` are the smallest and largest x."""
    width, height = size
    values = [value for _, value in points]
    low, high = min(values), max(values)
    scale_x, scale_y = max(limits[1] - limits[0], 1e-9), max(high - low, 1e-9)
    line = [
        (LEFT + (a - limits[0]) / scale_x * (width - 60), top + height - 20 - (value - low) / scale_y * (height - 50))
        for a, value in points
    ]
    draw.text((LEFT + 4, top + 6), f"{name}: {low:.4g} to {high:.4g}, last {values[-1]:.4g}", fill="black")
    draw.rectangle((LEFT, top + TOP, width - RIGHT, top + height - BOTTOM), outline="#cccccc")
    if len(line) > 1:
        draw.line(line, fill="#1f5fa8", width=2)
