"""The state of one training run on disk: it can be resumed, is logged, and is never half-written.

A run folder holds state.pt (models, optimisers, step: for resuming only), curve.csv and curve.png, and run.lock, which
one process at a time holds.

A run is identified by its options and by the hashes of its inputs, which state.pt keeps. Pictures are hashed by their names and
contents, not by size and time: they are in memory anyway, copies of a folder resume the same run, and an edit is noticed.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from ..distributed import processes, rank_and_world
from ..storage import Lock, replacing, temporary_name
from .curve import draw_curve
from .pictures import Picture

FREE = ("steps", "epochs", "minutes", "accumulate")  # options that may differ when a run is resumed
BY_EPOCHS = "in epochs"  # key of the state: whether the length was given in epochs, which decides how samples are drawn
STATE, CURVE, PLOT, LOCK = "state.pt", "curve.csv", "curve.png", "run.lock"
log = logging.getLogger(__name__)


def pictures_sha256(pictures: Iterable[Picture]) -> str:
    """Hash of pictures, in their order, and of what is known of them."""
    digest = hashlib.sha256()
    for picture in pictures:
        known = (picture.key, picture.captions, picture.style, picture.content, picture.kind)
        digest.update(f"{known!r}".encode(errors="surrogateescape") + hashlib.sha256(picture.data).digest())
    return digest.hexdigest()


def tensors_sha256(tensors: Iterable[torch.Tensor]) -> str:
    """Hash of tensors, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(path: Path, value: Any) -> None:
    """torch.save that leaves no half-written file after a kill."""
    with replacing(path) as stream:
        torch.save(value, stream)


class Run:
    """One run folder: saves and loads the state, appends to the curve. Of several processes only the main one writes.

    Args:
        folder: made if missing.
        resume: False starts anew: `load` removes an existing state.
        inputs: hashes of what the run learns from and with, by name, such as {"pictures": ..., "translator": ...}. A run with
            other inputs is not resumed.

    Raises:
        ValueError: the folder cannot be made, or holds files of the same names that are not of a run.
    """

    def __init__(self, folder: str | Path, resume: bool = True, inputs: Mapping[str, str] | None = None):
        self.folder = Path(folder)
        with self._explain_failure():
            self.folder.mkdir(parents=True, exist_ok=True)
        self.resume, self.inputs = resume, dict(inputs or {})
        self.config: dict[str, Any] = {}
        self.main = rank_and_world()[0] == 0
        self._lock = Lock(self.folder / LOCK)
        strange = [name for name in (CURVE, PLOT) if (self.folder / name).exists()]
        if strange and not any((self.folder / name).exists() for name in (LOCK, STATE)):
            raise ValueError(f"{self.folder} holds a {strange[0]} of something else, which a run would replace: give another one")

    def load(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Lock the folder -> the last saved state, or None if there is none. Rows of the curve after its step are removed.
        Collective. `close`, which the end of a training calls, unlocks.

        Args:
            config: the options of this run. All but those in FREE must be the ones that the state was saved with.

        Raises:
            ValueError: another process uses the folder, the options or inputs differ, the state cannot be read, or the processes
                find different states.
        """
        self._take()
        try:
            state = self._load(config)
            if not processes().all_equal(state["step"] + 1 if state else 0):
                raise ValueError(
                    f"the processes find different states in {self.folder}: give a --run-dir in a folder that all hosts see"
                )
        except BaseException:
            self.close()
            raise
        rows = [row for row in self.rows() if float(row["step"]) <= state["step"]] if state and self.main else []
        if rows:
            self._write_curve(rows)
        return state

    def close(self) -> None:
        """Unlock the folder: another process may resume the run."""
        self._lock.release()

    def _take(self) -> None:
        with self._explain_failure():
            taken = not self._lock.take() if self.main else False
        if processes().broadcast_value(float(taken)):
            raise ValueError(
                f"another process trains in {self.folder}: wait for it, stop it, or give another folder (--run-dir) for this run"
            )
        if self.main:
            for name in (STATE, CURVE, PLOT):  # temporary files of a process that was killed
                for left in self.folder.glob(temporary_name(name, "*")):
                    left.unlink(missing_ok=True)

    def _load(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        self.config = {key: value for key, value in config.items() if key not in FREE}
        if "epochs" in config:
            self.config[BY_EPOCHS] = bool(config["epochs"])
        path = self.folder / STATE
        if not self.resume:
            if self.main:  # the curve first: rows without a state belong to nothing
                (self.folder / CURVE).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            return None
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            before, step = state.get("config", {}), int(state["step"])
        except Exception as error:  # torch raises many kinds
            raise ValueError(
                f"{path} cannot be read ({type(error).__name__}): give another --run-dir, or start anew with --no-resume, which "
                "replaces it"
            ) from error
        if differ := [key for key, value in self.config.items() if key in before and before[key] != value]:
            was = ", ".join(f"{key} {before[key]!r} (now {self.config[key]!r})" for key in differ)
            raise ValueError(
                f"the run in {self.folder} was started with {was}: resume it with the same options, start anew with "
                "--no-resume, or give another --run-dir"
            )
        self._check_inputs(state.get("inputs"))
        if (steps := config.get("steps")) and step > steps + config.get("pairs_steps", 0):
            raise ValueError(
                f"the run in {self.folder} has done {step} steps, more than the {steps} asked for: give as many or more, start "
                "anew with --no-resume, or give another --run-dir"
            )
        return state

    def _check_inputs(self, before: Mapping[str, str] | None) -> None:
        """Raises ValueError if the state was saved with other inputs; `before` is None in states of earlier versions."""
        if before is None:
            if self.inputs:
                log.warning("%s does not tell what pictures and models its run had, they are taken to be the same", self.folder)
            return
        differ = [key for key in {**before, **self.inputs} if before.get(key) != self.inputs.get(key)]
        if differ and self.inputs:
            raise ValueError(
                f"the run in {self.folder} was started with other {', '.join(differ)}: resume it with the same, start anew with "
                "--no-resume, or give another --run-dir"
            )

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state and curve.png. A kill leaves the previous files whole.

        Raises:
            ValueError: the folder cannot be written or the disk is full; the previous files are left.
        """
        if not self.main:
            return
        with self._explain_failure():
            save_tensors(self.folder / STATE, {**state, "config": self.config, "inputs": self.inputs})
        if rows := self.rows():
            with self._explain_failure(), replacing(self.folder / PLOT) as stream:
                draw_curve(rows).save(stream, "PNG")

    def log(self, **row: float | None) -> None:
        """Append one row to curve.csv. Its columns are those of the first row; None is left blank."""
        if not self.main:
            return
        path = self.folder / CURVE
        new = not path.exists()
        with self._explain_failure(), path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow({key: "" if value is None else f"{value:.7g}" for key, value in row.items()})

    def rows(self) -> list[dict[str, str]]:
        """The rows of curve.csv. A last row that a kill cut short is left out."""
        path = self.folder / CURVE
        if not path.is_file():
            return []
        with path.open(newline="") as stream:
            return [row for row in csv.DictReader(stream) if None not in row.values()]

    def _write_curve(self, rows: list[dict[str, str]]) -> None:
        text = StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        with self._explain_failure(), replacing(self.folder / CURVE) as stream:
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
