"""The state of one training run on disk: resumable, logged, never half-written.

A run folder holds state.pt (models, optimiser, step: for resuming only), curve.csv and curve.png.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import torch
from PIL import Image, ImageDraw


class Run:
    """One run folder: save and load the state, append to the curve.

    Args:
        folder: made if missing.
        resume: False starts anew (an existing state is ignored and then replaced).
    """

    def __init__(self, folder: str | Path, resume: bool = True):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.resume = resume
        if not resume:
            (self.folder / "curve.csv").unlink(missing_ok=True)

    def load(self) -> dict | None:
        """The last saved state, or None where there is none."""
        path = self.folder / "state.pt"
        if not (self.resume and path.is_file()):
            return None
        state: dict = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict) -> None:
        """Write the state to a temporary file, then rename: a kill leaves the previous one whole."""
        temporary = self.folder / f"state.pt.{os.getpid()}"
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.folder / "state.pt")

    def log(self, **row: float) -> None:
        """Append one row to curve.csv (its columns are those of the first row) and redraw curve.png."""
        path = self.folder / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        draw_curve(rows).save(self.folder / "curve.png")


def draw_curve(rows: list[dict], x: str = "step", size: tuple[int, int] = (640, 150)) -> Image.Image:
    """Every column of `rows` against column `x`, one panel each, drawn with nothing but Pillow."""
    names = [name for name in rows[0] if name != x]
    width, height = size
    image = Image.new("RGB", (width, height * len(names)), "white")
    draw = ImageDraw.Draw(image)
    xs = [float(row[x]) for row in rows]
    for panel, name in enumerate(names):
        top = panel * height
        points = [(a, float(row[name])) for a, row in zip(xs, rows, strict=True) if row.get(name) not in ("", None)]
        values = [v for _, v in points if v == v]
        if not values:
            continue
        low, high = min(values), max(values)
        scale_x, scale_y = max(xs[-1] - xs[0], 1e-9), max(high - low, 1e-9)
        line = [
            (40 + (a - xs[0]) / scale_x * (width - 60), top + height - 20 - (v - low) / scale_y * (height - 50))
            for a, v in points
            if v == v
        ]
        draw.text((44, top + 6), f"{name}: {low:.4g} to {high:.4g}, last {values[-1]:.4g}", fill="black")
        draw.rectangle((40, top + 28, width - 20, top + height - 18), outline="#cccccc")
        if len(line) > 1:
            draw.line(line, fill="#1f5fa8", width=2)
    return image
