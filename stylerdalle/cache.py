"""Loaded models, shared by everyone in the process: nodes, prompts and library calls.

A file is loaded once for each (path, mtime, size, dtype, device); a changed file is loaded again and replaces the old one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_models: dict[tuple[Any, ...], Any] = {}
_lock = threading.RLock()


def load(loader: Callable[[Path, torch.device, torch.dtype], T], path: str | Path, device: torch.device, dtype: torch.dtype) -> T:
    """loader(path, device, dtype), or what it gave before for the same unchanged file.

    Raises:
        ValueError: the file does not exist.
    """
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError as error:
        raise ValueError(f"{path} does not exist: check the path") from error
    place = (loader, real, str(device), dtype)
    key = (*place, status.st_mtime_ns, status.st_size)
    with _lock:
        if key not in _models:
            for old in [k for k in _models if k[: len(place)] == place]:
                del _models[old]
            _models[key] = loader(Path(path), device, dtype)
        model: T = _models[key]
        return model


def clear() -> None:
    """Forget every loaded model; memory returns when nobody else holds them."""
    with _lock:
        _models.clear()


def size() -> int:
    """How many models are held."""
    return len(_models)
