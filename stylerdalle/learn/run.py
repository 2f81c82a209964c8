"""The state of one training run on disk: resumable, logged, never half-written.

A run folder holds state.pt (models, optimiser, step: for resuming only), curve.csv and curve.png.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from ..distributed import processes, rank_and_world
from ..storage import replacing

FREE = ("steps", "epochs", "minutes", "accumulate")  # options that may differ when a run is taken up again


class Run:
    """One run folder: save and load the state, append to the curve. Of several processes the main one writes.

    Args:
        folder: made if missing.
        resume: False starts anew (an existing state is ignored and then replaced).
    """

    def __init__(self, folder: str | Path, resume: bool = True):
        self.folder = Path(folder)
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        self.resume = resume
        self.config: dict[str, Any] = {}
        self.main = rank_and_world()[0] == 0
        if not resume and self.main:
            (self.folder / "curve.csv").unlink(missing_ok=True)

    def load(
        self, config: Mapping[str, Any], free: tuple[str, ...] = ("steps", "epochs", "minutes", "accumulate")
    ) -> dict | None:
        """The last saved state, or None where there is none. Rows of the curve after its step are dropped.

        Args:
            config: the options of this run, all but those in `free` as when the state was saved.

        Raises:
            ValueError: the options differ, the state cannot be read, or several processes find different ones.
        """
        state = self._load(config, free)
        if not processes().all_have(state["step"] + 1 if state else 0):
            raise ValueError(
                f"the processes find different states in {self.folder}: give a --run-dir in a folder that all hosts see"
            )
        rows = [row for row in self.rows() if float(row["step"]) <= state["step"]] if state and self.main else []
        if rows:
            self._write(rows, list(rows[0]))
        return state

    def _load(self, config: Mapping[str, Any], free: tuple[str, ...]) -> dict | None:
        self.config = {key: value for key, value in config.items() if key not in free}
        path = self.folder / "state.pt"
        if not (self.resume and path.is_file()):
            return None
        try:
            state: dict = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch names many
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}): delete that folder, or start anew with --no-resume"
            ) from error
        before = state.get("config", {})
        if differ := [key for key, value in self.config.items() if key in before and before[key] != value]:
            was = ", ".join(f"{key} {before[key]!r} (now {self.config[key]!r})" for key in differ)
            raise ValueError(
                f"the run in {self.folder} was begun with {was}: go on with the same options, start anew with --no-resume, "
                "or give another --run-dir"
            )
        return state

    def rows(self) -> list[dict[str, str]]:
        """The curve so far; a row that a kill cut short is left out."""
        path = self.folder / "curve.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as stream:
            return [row for row in csv.DictReader(stream) if None not in row.values()]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch's writer has the second one
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"the run cannot be saved in {self.folder} ({reason}): make room there, or choose a folder that can be written; "
                "run again, it goes on from its last save"
            ) from error

    def _write(self, rows: list[dict[str, str]], columns: list[str]) -> None:
        text = StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
        with self._writing(), replacing(self.folder / "curve.csv") as stream:
            stream.write(text.getvalue().encode())

    def save(self, state: dict) -> None:
        """Write the state and curve.png; a kill leaves the previous ones whole.

        Raises:
            ValueError: the folder cannot be written or the disk is full; the previous ones are left.
        """
        if not self.main:
            return
        with self._writing(), replacing(self.folder / "state.pt") as stream:
            torch.save({**state, "config": self.config}, stream)
        if rows := self.rows():
            with self._writing(), replacing(self.folder / "curve.png") as stream:
                draw_curve(rows).save(stream, "PNG")

    def log(self, **row: float | None) -> None:
        """Append one row to curve.csv (its columns are those of the first row; None is left blank)."""
        if not self.main:
            return
        path = self.folder / "curve.csv"
        new = not path.exists()
        with self._writing(), path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow({key: "" if value is None else f"{value:.7g}" for key, value in row.items()})


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
