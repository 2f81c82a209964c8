"""A training step as one CUDA graph: a GPU then starts its thousands of small kernels at once, not one by one from Python.

The step is a function of tensors of equal shapes. It must not read numbers back, and what it draws by chance comes in as tensors.
See pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Work = Callable[..., Mapping[str, Tensor]]
WARM = 2  # calls before the recording, in which libraries choose their kernels


class Recorded:
    """A function that adds gradients to `parameters`, recorded at its first call.

    Args:
        work: (tensors) -> numbers by name, scalars.
        parameters: all that it adds gradients to.
        device: of the parameters, where its arguments are moved to. Anywhere but on CUDA, and where CUDA cannot record it, it is
            called as it is.
    """

    def __init__(self, work: Work, parameters: Sequence[Tensor], device: torch.device):
        self.work, self.parameters, self.device = work, parameters, device
        self.plain = device.type != "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.numbers: Mapping[str, Tensor] = {}
        self.gradients: list[Tensor | None] = []

    def __call__(self, *inputs: Tensor) -> Mapping[str, Tensor]:
        """Add the gradients -> the numbers, which the next call overwrites. Parameters have no gradient before."""
        if self.plain:
            return self.work(*(x.to(self.device) for x in inputs))
        if self.graph is None:
            self.inputs = [x.to(self.device, copy=True) for x in inputs]
            try:
                self._record()
            except RuntimeError as error:  # such as an operator that reads a number back
                log.warning("the step is not recorded as a CUDA graph (%s): it runs as it is, slower", _first_line(error))
                self.plain, self.graph = True, None
                self._clear()
                return self(*inputs)
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given if given.is_cuda else given.pin_memory(), non_blocking=True)
        assert self.graph is not None
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.numbers

    def _record(self) -> None:
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self.work(*self.inputs)
                self._clear()
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.numbers = self.work(*self.inputs)
        self.graph, self.gradients = graph, [parameter.grad for parameter in self.parameters]

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
