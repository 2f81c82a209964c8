"""Device and dtype. They are chosen once, where a command or node begins, and then passed as arguments."""

from __future__ import annotations

import torch

from .distributed import on_cpu, own_gpu, rank_and_world


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; `auto` is CUDA, else MPS, else the CPU. With several processes, each `auto` is a GPU of its own.

    Raises:
        ValueError: this machine does not have the device.
    """
    if str(device) == "auto":
        if rank_and_world()[1] > 1 and (on_cpu() or own_gpu()):
            return own_gpu() or torch.device("cpu")
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here ({reason}): try auto or cpu") from error
    return chosen


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
