"""Device and dtype. They are chosen once, where a command or node begins, and then passed as arguments."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch

from .distributed import on_cpu, own_gpu, rank_and_world

FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"  # read by torch when it is imported
log = logging.getLogger(__name__)


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


@lru_cache
def announced(device: torch.device) -> torch.device:
    """The device; for MPS one line of the log says where operators run that it lacks (docs/gpu.md lists them)."""
    if device.type == "mps" and os.environ.get(FALLBACK) == "1":
        log.warning("mps: operators that torch lacks there run on the CPU (%s=1), which is slower", FALLBACK)
    elif device.type == "mps":
        log.warning("mps: set %s=1 before the start if torch reports an operator that it lacks there", FALLBACK)
    return device


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block in which training multiplies in bfloat16, or in float32 where the device cannot."""
    if not multiplies_in_bf16(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@lru_cache
def multiplies_in_bf16(kind: str) -> bool:
    """Whether a device multiplies in bfloat16. Where it does not, such as on MPS before macOS 14, one line of the log says so."""
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
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in names:
        raise ValueError(f"dtype {dtype!r} is not known: auto, {', '.join(names)}")
    return names[dtype]
