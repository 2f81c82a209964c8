"""Device, dtype and memory. Device and dtype are chosen once, where a command or node begins, and then passed as arguments.

Work that does not fit into memory is done in halves, down to parts that are too small to matter; then one sentence says so. Only
this library's own unused memory is given back meanwhile: models of a host stay where they are.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

import torch

from .distributed import on_cpu, own_gpu, rank_and_world

T = TypeVar("T")
Box = tuple[int, int, int, int]  # top, bottom, left, right
P = ParamSpec("P")
SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed", "not enough memory")
FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"  # read by torch when it is imported
log = logging.getLogger(__name__)


class OutOfMemory(torch.OutOfMemoryError):
    """Even the smallest part of the work needs more memory than there is.

    It is torch's own error, so that a host does what it does for it: ComfyUI moves its models off the GPU.
    """


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation has failed, on a CPU, CUDA or MPS; not for an OutOfMemory, which has been explained."""
    if isinstance(error, OutOfMemory):
        return False
    failed = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return failed or (isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS))


def fits(work: Callable[P, object], *args: P.args, **options: P.kwargs) -> bool:
    """Do some work -> whether memory sufficed. What the work held is given back; other errors are raised."""
    try:
        work(*args, **options)
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def in_batches(work: Callable[[Sequence[T]], object], items: Sequence[T], batch: int) -> int:
    """work(some items) for all of them, `batch` at a time, or half as many where memory does not suffice -> the last batch.

    Raises:
        OutOfMemory: it does not suffice for one.
    """
    place = 0
    while place < len(items):
        if fits(work, items[place : place + batch]):
            place += batch
        elif min(batch, len(items) - place) == 1:
            raise OutOfMemory(explanation())
        else:
            batch = min(batch, len(items) - place) // 2
    return batch


def in_halves(work: Callable[[Box], object], box: Box, least: int) -> None:
    """work(box), or of its halves where memory does not suffice.

    Args:
        least: a box with no side longer is not halved.

    Raises:
        OutOfMemory: memory does not suffice for a box of `least`.
    """
    todo = [box]
    while todo:
        top, bottom, left, right = part = todo.pop()
        if fits(work, part):
            continue
        if max(bottom - top, right - left) <= least:
            raise OutOfMemory(explanation())
        if bottom - top >= right - left:
            middle = (top + bottom) // 2
            todo += [(middle, bottom, left, right), (top, middle, left, right)]
        else:
            middle = (left + right) // 2
            todo += [(top, bottom, middle, right), (top, bottom, left, middle)]


def explained(function: Callable[P, T], *words: str) -> Callable[P, T]:
    """The function, whose failed allocations become an OutOfMemory with one sentence; `words` as for `explanation`."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        raise OutOfMemory(explanation(*words))

    return call


def explanation(work: str = "a picture of this size", advice: str = "take a smaller one, or fewer at once") -> str:
    """The sentence of an OutOfMemory."""
    return f"there is not enough memory for {work}: {advice}; close other programs, or use the CPU instead of a small GPU"


@functools.lru_cache
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers as a tensor on the device, made once: to bring numbers to a GPU waits for it, and a CUDA graph cannot wait.

    Nobody may change it.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; `auto` is CUDA, else MPS, else the CPU. With several processes, each `auto` is a GPU of its own.

    Raises:
        ValueError: this machine does not have the device.
    """
    if str(device) == "auto":
        if rank_and_world()[1] > 1 and (on_cpu() or own_gpu()):
            return own_gpu() or torch.device("cpu")
        mps = torch.backends.mps.is_available()
        return announced(torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"))
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here ({reason}): try auto or cpu") from error
    return announced(chosen)


@functools.lru_cache
def announced(device: torch.device) -> torch.device:
    """The device; for MPS one line of the log says where operators run that it lacks (docs/gpu.md lists them)."""
    if device.type == "mps" and os.environ.get(FALLBACK) == "1":
        log.warning("mps: operators that torch lacks there run on the CPU (%s=1), which is slower", FALLBACK)
    elif device.type == "mps":
        log.warning("mps: set %s=1 before the start if torch reports an operator that it lacks there", FALLBACK)
    return device


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block in which training multiplies in bfloat16, or in float32 where the device cannot or is slow at it."""
    if not multiplies_in_bf16(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def product_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which training multiplies, for weights that do not learn."""
    return torch.bfloat16 if multiplies_in_bf16(device.type) else torch.float32


@functools.lru_cache
def multiplies_in_bf16(kind: str) -> bool:
    """Whether a device multiplies in bfloat16. Where it does not, such as on MPS before macOS 14, one line of the log says so."""
    if kind == "cpu":
        return fast_bf16()
    try:
        probe(kind)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        log.warning("%s has no bfloat16 (%s): training multiplies in float32 there", kind, str(error).splitlines()[0])
        return False
    return True


def probe(kind: str) -> None:
    """Multiply in bfloat16. Raises RuntimeError or TypeError where the device cannot."""
    small = torch.ones(8, 8, device=kind, dtype=torch.bfloat16)
    torch.mm(small, small)


def fast_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16. Without them torch's products in it take up to 200 times as long as in
    float32 (2,048 x 2,048 on one core of an AMD EPYC, torch 2.14: 54.7 s and 0.25 s)."""
    return torch.cpu._is_avx512_bf16_supported()


def choose_dtype(device: torch.device, dtype: str | torch.dtype = "auto") -> torch.dtype:
    """The dtype of that name; `auto` is fp16 on CUDA, bf16 on CPUs with bf16 instructions, else fp32.

    Raises:
        ValueError: an unknown name.
    """
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and fast_bf16() else torch.float32
    if dtype not in names:
        raise ValueError(f"dtype {dtype!r} is not known: auto, {', '.join(names)}")
    return names[dtype]
