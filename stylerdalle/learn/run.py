"""The state of one training run on disk: it can be resumed, is logged, and is never half-written.

A run folder holds state.pt (models, optimisers, step: for resuming only), curve.csv and curve.png.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from ..distributed import processes, rank_and_world
from ..storage import replacing
from .curve import draw_curve

FREE = ("steps", "epochs", "minutes", "accumulate")  # options that may differ when a run is resumed


class Run:
    """One run folder: saves and loads the state, appends to the curve. Of several processes only the main one writes.

    Args:
        folder: made if missing.
        resume: False starts anew: an existing state is ignored, and replaced by the first save.

    Raises:
        ValueError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, resume: bool = True):
        self.folder = Path(folder)
        with self._explain_failure():
            self.folder.mkdir(parents=True, exist_ok=True)
        self.resume = resume
        self.config: dict[str, Any] = {}
        self.main = rank_and_world()[0] == 0
        if not resume and self.main:
            (self.folder / "curve.csv").unlink(missing_ok=True)

    def load(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The last saved state, or None if there is none. Rows of the curve after its step are removed. Collective.

        Args:
            config: the options of this run. All but those in FREE must be the ones that the state was saved with.

        Raises:
            ValueError: the options differ, the state cannot be read, or the processes find different states.
        """
        state = self._load(config)
        if not processes().all_equal(state["step"] + 1 if state else 0):
            raise ValueError(
                f"the processes find different states in {self.folder}: give a --run-dir in a folder that all hosts see"
            )
        rows = [row for row in self.rows() if float(row["step"]) <= state["step"]] if state and self.main else []
        if rows:
            self._write_curve(rows)
        return state

    def _load(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        self.config = {key: value for key, value in config.items() if key not in FREE}
        path = self.folder / "state.pt"
        if not (self.resume and path.is_file()):
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}): delete that folder, or start anew with --no-resume"
            ) from error
        before = state.get("config", {})
        if differ := [key for key, value in self.config.items() if key in before and before[key] != value]:
            was = ", ".join(f"{key} {before[key]!r} (now {self.config[key]!r})" for key in differ)
            raise ValueError(
                f"the run in {self.folder} was started with {was}: resume it with the same options, start anew with "
                "--no-resume, or give another --run-dir"
            )
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state and curve.png. A kill leaves the previous files whole.

        Raises:
            ValueError: the folder cannot be written or the disk is full; the previous files are left.
        """
        if not self.main:
            return
        with self._explain_failure(), replacing(self.folder / "state.pt") as stream:
            torch.save({**state, "config": self.config}, stream)
        if rows := self.rows():
            with self._explain_failure(), replacing(self.folder / "curve.png") as stream:
                draw_curve(rows).save(stream, "PNG")

    def log(self, **row: float | None) -> None:
        """Append one row to curve.csv. Its columns are those of the first row; None is left blank."""
        if not self.main:
            return
        path = self.folder / "curve.csv"
        new = not path.exists()
        with self._explain_failure(), path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow({key: "" if value is None else f"{value:.7g}" for key, value in row.items()})

    def rows(self) -> list[dict[str, str]]:
        """The rows of curve.csv. A last row that a kill cut short is left out."""
        path = self.folder / "curve.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as stream:
            return [row for row in csv.DictReader(stream) if None not in row.values()]

    def _write_curve(self, rows: list[dict[str, str]]) -> None:
        text = StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        with self._explain_failure(), replacing(self.folder / "curve.csv") as stream:
            stream.write(text.getvalue().encode())

    @contextmanager
    def _explain_failure(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"the run cannot be saved in {self.folder} ({reason}): free some space there, or choose a folder that can be "
                "written; run again to resume from the last save"
            ) from error
