"""The loop of every training: resume, learning rates, gradient clipping, the optimisers' steps, saves, the curve, the log.

A training builds its models and says what a batch is and how a step adds its gradients:

    descent = Descent(optimizer, rate, parameters)
    loop = Loop(run, config.steps, config.seed, {"model": model, "optimizer": optimizer}, [descent])
    loop.resume(asdict(config))
    loop.train(batch, learn)

A step draws its batch from (seed, step), so a resumed run repeats what an unbroken one does.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..device import explained
from ..distributed import processes
from .means import RunningMeans
from .run import Run
from .schedule import batches

log = logging.getLogger(__name__)
Batch = TypeVar("Batch")
Numbers = Mapping[str, float | None]  # of a step, such as its loss, by their names in the curve; None is left blank there


class Stateful(Protocol):
    """A part of a run's state: a module, an optimiser, `Tensors`."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Tensors:
    """Tensors by name, as a part of a run's state. Loading copies into them."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.tensors = tensors

    def state_dict(self) -> dict[str, Any]:
        return {name: tensor.detach() for name, tensor in self.tensors.items()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for name, tensor in state_dict.items():
            self.tensors[name].data.copy_(tensor)


@dataclass(frozen=True)
class Descent:
    """An optimiser and how it steps. A step changes nothing where no parameter has a gradient."""

    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]  # the learning rate of a step
    parameters: Sequence[Tensor]  # of the optimiser, in the order in which the norm of their gradient is summed
    max_norm: float = 1.0  # of the gradient, which is scaled down to it; infinity: never

    def step(self, step: int) -> None:
        """Move the parameters by their gradients, then drop the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        if all(parameter.grad is None for parameter in self.parameters):
            return
        if math.isfinite(self.max_norm):
            torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


@dataclass
class Loop:
    """The loop of one run."""

    run: Run
    steps: int  # of the whole run, those before it was resumed included
    seed: int  # of the batches
    state: Mapping[str, Stateful]  # what is saved and resumed, by its key in state.pt
    descents: Sequence[Descent]  # their optimisers step after each call of `learn`
    minutes_between_saves: float = 5
    minutes: float = 0  # the run stops after so long, the time before it was resumed included; 0: no limit
    report_every: int = 0  # steps between lines of the log; 0: none
    curve_of_steps: bool = False  # the curve has each step's numbers; else their running means at each report
    interruptible: bool = False  # `learn` changes nothing but gradients, so an interrupted run can be saved where it is
    done: int = field(default=0, init=False)  # steps
    _first: int = field(default=0, init=False)  # step of this session
    _seconds: float = field(default=0.0, init=False)  # before this session
    _started: float = field(default_factory=time.monotonic, init=False)

    def resume(self, options: Mapping[str, Any]) -> bool:
        """Load the run's last state, if there is one -> whether there was. Collective.

        Args:
            options: of the run, as for `Run.load`.

        Raises:
            ValueError: as `Run.load`, or a part of the state is missing.
        """
        state = self.run.load(options)
        if not state:
            return False
        if missing := [key for key in self.state if key not in state]:
            raise ValueError(
                f"the state in {self.run.folder} has no {', '.join(missing)}: another version saved it, "
                "start anew with --no-resume"
            )
        for key, part in self.state.items():
            part.load_state_dict(state[key])
        self.done = self._first = state["step"]
        self._seconds = state.get("seconds", 0.0)
        log.info("resumed at step %d", self.done)
        return True

    def save(self) -> None:
        """Write the state as it is after `done` steps."""
        parts = {key: part.state_dict() for key, part in self.state.items()}
        self.run.save({**parts, "seconds": self.seconds, "step": self.done})

    @property
    def seconds(self) -> float:
        """Spent in this run so far."""
        return self._seconds + time.monotonic() - self._started

    @property
    def passed(self) -> float:
        """The share of the run's minutes that it has used, in [0, 1]; 0 without a limit."""
        return min(1.0, self.seconds / (60 * self.minutes)) if self.minutes else 0.0

    def train(
        self,
        batch: Callable[[int, np.random.Generator], Batch],
        learn: Callable[[int, Batch], Numbers],
        after: Callable[[int, Numbers], Numbers] = lambda step, numbers: {},
        measure: Callable[[], Numbers] = dict,
        stop: Callable[[], str] | None = None,
        callback: Callable[[int, Numbers], None] = lambda done, numbers: None,
    ) -> None:
        """Train to the last step, or until `stop` or the time limit ends the run.

        Args:
            batch: (step, rng) -> the batch. Runs a few steps ahead, in a thread.
            learn: (step, batch) -> the step's numbers, its gradients added to the parameters.
            after: (step, numbers) -> further numbers for the curve, called when the optimisers have stepped.
            measure: -> numbers for a report, in the main process.
            stop: -> why the run should end now, or "". The main process's answer counts.
            callback: (steps done, numbers of the step), called last in each step. An exception ends the run.

        Raises:
            ValueError: a number of a step is not finite, or the state cannot be saved.
        """
        with closing(self.run):
            self._train(batch, learn, after, measure, stop, callback)

    def _train(
        self,
        batch: Callable[[int, np.random.Generator], Batch],
        learn: Callable[[int, Batch], Numbers],
        after: Callable[[int, Numbers], Numbers],
        measure: Callable[[], Numbers],
        stop: Callable[[], str] | None,
        callback: Callable[[int, Numbers], None],
    ) -> None:
        self._started = saved = time.monotonic()
        if self.done and self._reason(stop):  # a resumed run that had ended
            return
        means = RunningMeans()
        for step, content in enumerate(batches(batch, self.seed, self.done, self.steps), self.done):
            whole = True  # whether a save now would hold the state after `done` steps
            try:
                work = f"step {step + 1} of the training, which resumes from its last save"
                numbers = explained(learn, work, "lower its batch or size")(step, content)
                self._check(step, numbers)
                whole = False
                for descent in self.descents:
                    descent.step(step)
                self.done = step + 1
                numbers = {**numbers, **after(step, numbers)}
                means.update(numbers)
                self._report(numbers, means, measure)
                whole = True
                reason = self._reason(stop)
                if self.done == self.steps or reason or time.monotonic() - saved > 60 * self.minutes_between_saves:
                    self.save()
                    saved = time.monotonic()
                callback(self.done, numbers)
            except BaseException as error:
                if self.interruptible and whole and not isinstance(error, ValueError):
                    self.save()
                raise
            if reason:
                log.info("stopped at step %d: %s", self.done, reason)
                return

    def _check(self, step: int, numbers: Numbers) -> None:
        if wrong := [value for value in numbers.values() if value is not None and not math.isfinite(value)]:
            rate = self.descents[0].rate(step)
            raise ValueError(
                f"the loss became {wrong[0]} at step {step + 1}: lower the learning rate (here {rate:g}) and try again"
            )

    def _report(self, numbers: Numbers, means: RunningMeans, measure: Callable[[], Numbers]) -> None:
        """A row of the curve and a line of the log, where they are due."""
        if self.curve_of_steps:
            self.run.log(step=self.done, **numbers)
        if not self.report_every or self.done % self.report_every or not self.run.main:
            return
        found = {**measure(), **means.values}
        if not self.curve_of_steps:
            self.run.log(step=self.done, **found)
        line = " ".join(f"{name} {value:.4g}" for name, value in found.items() if value is not None)
        pace = (time.monotonic() - self._started) / (self.done - self._first)
        log.info("step %d %s, %.2f s/step", self.done, line, pace)

    def _reason(self, stop: Callable[[], str] | None) -> str:
        """Why the run ends after this step, by the main process's answer; "" where it goes on."""
        late = bool(self.minutes) and self.seconds > 60 * self.minutes
        reason = "time limit" if late else stop() if stop else ""
        if stop or self.minutes:
            ends = processes().broadcast_value(float(bool(reason)))
            return (reason or "the main process has stopped") if ends else ""
        return reason
