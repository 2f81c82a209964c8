"""A run, or a list of photos, shared by several processes that Hugging Face Accelerate starts:

    accelerate launch --num_processes 8 -m stylerdalle pretrain --images SHARDS --output translator.safetensors

A step does not depend on the number of processes: its batch is a function of (seed, step), each process works on its shard of
the batch, and the gradients are summed (docs/scale.md). Only the main process writes files. One process needs no accelerate.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Item = TypeVar("Item")
PATIENCE = 5  # s, that the main process waits for the others to end
GROUP_TIMEOUT = timedelta(hours=1)  # of a collective: the main process may work alone for long, as when it makes pairs


def rank_and_world() -> tuple[int, int]:
    """(rank of this process, number of processes), from RANK and WORLD_SIZE; (0, 1) if they are not set.

    Raises:
        ValueError: they are not two whole numbers with 0 <= RANK < WORLD_SIZE.
    """
    given = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, world = map(int, given)
        if not 0 <= rank < world:
            raise ValueError
    except ValueError as error:
        raise ValueError(
            f"RANK {given[0]!r} and WORLD_SIZE {given[1]!r} do not fit together: need 0 <= RANK < WORLD_SIZE"
        ) from error
    return rank, world


@dataclass(frozen=True)
class Processes:
    """The processes of a run. With one process (the default) every method leaves its arguments as they are.

    Methods marked "Collective" must be called on every rank, in the same order. They raise ConnectionError when another
    process has ended.
    """

    rank: int = 0
    world: int = 1
    device: torch.device | None = None  # of this process; None: the caller chooses

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    @overload
    def shard(self, items: Tensor) -> Tensor: ...
    @overload
    def shard(self, items: Sequence[Item]) -> Sequence[Item]: ...
    def shard(self, items: Any) -> Any:
        """The items of this process: every world-th item, or row of a tensor, starting at its rank."""
        return items[self.rank :: self.world]

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in float32. Collective."""
        if self.world > 1:
            import torch

            self._exchange(tensors, torch.distributed.all_reduce)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of the main process, in float32. Collective."""
        if self.world > 1:
            import torch

            self._exchange(tensors, lambda flat: torch.distributed.broadcast(flat, 0))

    def all_reduce_gradients(self, parameters: Iterable[Tensor], *others: Tensor) -> None:
        """Sum the gradients, and other tensors with them, over the processes. Collective.

        A gradient that is None in every process stays None; one that is None in some counts as 0 there.
        """
        if self.world == 1:
            return
        import torch

        tensors = list(parameters)
        present = torch.tensor([float(p.grad is not None) for p in tensors])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in tensors]
        self.all_reduce([present, *gradients, *others])
        for p, gradient, count in zip(tensors, gradients, present.tolist(), strict=True):
            p.grad = gradient if count else None

    def broadcast_value(self, value: float) -> float:
        """The value of the main process, so that all processes decide alike. Collective."""
        if self.world == 1:
            return value
        import torch

        sent = torch.tensor([value], dtype=torch.float64, device=self.device)
        self._communicate(lambda: torch.distributed.broadcast(sent, 0))
        return sent.item()

    def all_equal(self, number: int) -> bool:
        """Whether a number (under 2^24) is the same in all processes. Collective."""
        if self.world == 1:
            return True
        import torch

        numbers = torch.zeros(self.world)
        numbers[self.rank] = number
        self.all_reduce([numbers])
        return bool((numbers == number).all())

    def barrier(self) -> None:
        """Wait until all processes are here. Collective."""
        self.all_equal(0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run a block in the main process before the others, which then find the files that it wrote. Collective."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()

    def _exchange(self, tensors: Iterable[Tensor], collective: Callable[[Tensor], Any]) -> None:
        """Apply a collective to all tensors at once: they are copied into one flat float32 tensor, and back."""
        import torch

        given = list(tensors)
        if not given:
            return
        with torch.no_grad():
            flat = torch.cat([t.detach().flatten().to(self.device, torch.float32) for t in given])
            self._communicate(lambda: collective(flat))
            for tensor, part in zip(given, flat.split([t.numel() for t in given]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _communicate(self, collective: Callable[[], Any]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise ConnectionError(
                f"another process of this run has ended, so process {self.rank} stops too: look for the other process's message, "
                "then give the same command again to resume from the last save"
            ) from error


ALONE = Processes()


def processes() -> Processes:
    """The processes of this run. The first call is collective: it connects them.

    Raises:
        ValueError: there are several processes, and accelerate is not installed or this machine has fewer GPUs than processes.
        ConnectionError: the processes do not find each other.
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
        state = PartialState(cpu=gpu is None, timeout=GROUP_TIMEOUT)
    except RuntimeError as error:  # torch.distributed's
        raise ConnectionError(f"process {rank} of {world} did not find the others: {str(error).splitlines()[0]}") from error
    return Processes(rank, world, state.device)


def own_gpu() -> torch.device | None:
    """The GPU of this process, by LOCAL_RANK; None without CUDA, or if ACCELERATE_USE_CPU is set.

    Raises:
        ValueError: this machine has fewer GPUs than processes.
    """
    import torch

    if on_cpu() or not torch.cuda.is_available():
        return None
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise ValueError(
            f"process {local} of this machine has no GPU of its own ({count} GPUs): start at most one process per GPU, "
            "or set ACCELERATE_USE_CPU=1"
        )
    return torch.device("cuda", local)


def on_cpu() -> bool:
    """Whether ACCELERATE_USE_CPU asks for CPUs."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")


def prints_first(text: str) -> bool:
    """Whether this process should print `text`: the first of all processes that asks does.

    Before the processes are connected it is the main one.
    """
    rank, world = rank_and_world()
    if world == 1:
        return True
    import torch.distributed as dist

    if not dist.is_initialized():
        return rank == 0
    try:
        return bool(dist.distributed_c10d._get_default_store().add(f"printed {text}", 1) == 1)
    except RuntimeError:  # the main process, which holds the store, has ended with a message of its own
        return rank == 0


def leave() -> None:
    """Disconnect from the other processes, at the end of a run without errors."""
    if rank_and_world()[1] > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def end(code: int) -> NoReturn:
    """End this process with an exit code.

    One of several ends without the interpreter's teardown: threads of torch.distributed outlive the group, and one that lets go
    of a tensor in the teardown aborts the process (pytorch/pytorch#179291), so that work that is done counts as failed.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        _let_others_speak()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _let_others_speak() -> None:
    """Wait in the main process, whose end takes the store of `prints_first` away, until the others end too; not for long."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_initialized():  # never connected, or all left together
        return
    rank, world = rank_and_world()
    store, until = dist.distributed_c10d._get_default_store(), time.monotonic() + PATIENCE
    try:
        ended = store.add("ended", 1)
        while rank == 0 and ended < world and time.monotonic() < until:
            time.sleep(0.05)
            ended = store.add("ended", 0)
    except RuntimeError:
        return  # the main process has ended
