"""One run, or one list of photos, shared by several processes, as Hugging Face Accelerate starts them:

    accelerate launch --num_processes 8 -m stylerdalle pretrain --images SHARDS --output translator.safetensors

A step is the same whatever their number: its batch is a function of (seed, step), each process works through its share of it,
and the gradients are summed (docs/scale.md). The main process alone writes files. A process alone needs no accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor


S = TypeVar("S", bound="Sequence[Any] | Tensor")
PATIENCE = timedelta(hours=1)  # for a process that works alone, such as the main one on made pairs


def rank_and_world() -> tuple[int, int]:
    """(which process this is, how many there are), from RANK and WORLD_SIZE; (0, 1) for a process alone.

    Raises:
        ValueError: they are not such numbers.
    """
    given = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world = map(int, given)
        if not 0 <= rank < world:
            raise ValueError
    except ValueError as error:
        raise ValueError(f"RANK {given[0]!r} of WORLD_SIZE {given[1]!r} cannot be: need 0 <= RANK < WORLD_SIZE") from error
    return rank, world


@dataclass(frozen=True)
class Processes:
    """The processes of a run. Alone (the default) every method does nothing.

    What is not for one process must be called by all of them, in the same order. Where another has ended, all raise
    ConnectionError.
    """

    rank: int = 0
    world: int = 1
    device: torch.device | None = None  # of this process; None is for it to choose

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def mine(self, items: S) -> S:
        """This process's share: every world-th item, or row of a tensor, from its rank on."""
        return items[self.rank :: self.world]  # type: ignore[return-value]

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in float32."""
        if self.world > 1:
            import torch

            self._together(tensors, torch.distributed.all_reduce)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the main process's, in float32."""
        if self.world > 1:
            import torch

            self._together(tensors, lambda flat: torch.distributed.broadcast(flat, 0))

    def sum_gradients(self, parameters: Iterable[Tensor], *others: Tensor) -> None:
        """Sum the gradients, and other tensors with them; one that no process has stays None, and is 0 where some have it."""
        if self.world == 1:
            return
        import torch

        some = list(parameters)
        had = torch.tensor([float(p.grad is not None) for p in some])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
        self.sum([had, *gradients, *others])
        for p, gradient, count in zip(some, gradients, had.tolist(), strict=True):
            p.grad = gradient if count else None

    def told(self, value: float) -> float:
        """The main process's value, so that all decide alike."""
        if self.world == 1:
            return value
        import torch

        said = torch.tensor([value], dtype=torch.float64, device=self.device)
        self._call(lambda: torch.distributed.broadcast(said, 0))
        return said.item()

    def all_have(self, number: int) -> bool:
        """Whether the number (under 2^24) is the same in all processes."""
        if self.world == 1:
            return True
        import torch

        numbers = torch.zeros(self.world)
        numbers[self.rank] = number
        self.sum([numbers])
        return bool((numbers == number).all())

    def wait(self) -> None:
        """Until all processes are here."""
        self.all_have(0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the main process goes through before the others: they then find the files that it made."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()

    def _together(self, tensors: Iterable[Tensor], collect: Callable[[Tensor], Any]) -> None:
        """One exchange for all of the tensors, as one flat copy where the processes meet."""
        import torch

        some = list(tensors)
        if not some:
            return
        with torch.no_grad():
            flat = torch.cat([t.detach().flatten().to(self.device, torch.float32) for t in some])
            self._call(lambda: collect(flat))
            for tensor, part in zip(some, flat.split([t.numel() for t in some]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _call(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            raise ConnectionError(
                f"another process of this run has ended, so process {self.rank} stops too: see what that one said, and give the "
                "same command again, which goes on from the last save"
            ) from error


ALONE = Processes()


def processes() -> Processes:
    """Those of this run. The first call waits for all of them to make it.

    Raises:
        ValueError: there are several, and accelerate is not installed, or this machine has fewer GPUs than processes.
    """
    rank, world = rank_and_world()
    if world == 1:
        return ALONE
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ValueError(
            f"{world} processes were started (WORLD_SIZE), and they need accelerate: pip install 'comfyui-stylerdalle[scale]' "
            "or pip install accelerate, or start one process"
        ) from error
    gpu = own_gpu()
    try:
        state = PartialState(cpu=gpu is None, timeout=PATIENCE)
    except RuntimeError as error:  # torch.distributed's
        raise ConnectionError(f"process {rank} of {world} has not found the others: {str(error).splitlines()[0]}") from error
    return Processes(rank, world, state.device)


def own_gpu() -> torch.device | None:
    """The GPU of this one of several processes, by LOCAL_RANK; None where there is no CUDA, or ACCELERATE_USE_CPU is set.

    Raises:
        ValueError: this machine has fewer GPUs than processes.
    """
    import torch

    if on_cpu() or not torch.cuda.is_available():
        return None
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise ValueError(
            f"process {local} of this machine has no GPU of its own, there are {count}: start no more processes a machine than "
            "that, or set ACCELERATE_USE_CPU=1"
        )
    return torch.device("cuda", local)


def on_cpu() -> bool:
    """Whether the launcher was told to leave the GPUs alone."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")


def unsaid(text: str) -> bool:
    """Whether this process is to say `text`: the first of those that have it to say, and the main one before they have met."""
    rank, world = rank_and_world()
    if world == 1:
        return True
    import torch.distributed as dist

    if not dist.is_initialized():
        return rank == 0
    try:
        return bool(dist.distributed_c10d._get_default_store().add(f"said {text}", 1) == 1)
    except RuntimeError:  # the main process has gone, and has said why
        return rank == 0


def leave() -> None:
    """Let the others go, at the end of a run that went well."""
    if rank_and_world()[1] > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
