"""A cache of loaded models, shared by everything in the process: nodes, prompts and library calls.

A model is loaded once for each (path, mtime, size, dtype, device). A changed file is loaded again and replaces the old model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from .settings import shortened

T = TypeVar("T")
_models: dict[tuple[Any, ...], Any] = {}
_lock = threading.RLock()


def load(loader: Callable[[Path, torch.device, torch.dtype], T], path: str | Path, device: torch.device, dtype: torch.dtype) -> T:
    """loader(path, device, dtype), or its earlier result for the same unchanged file.

    Raises:
        ValueError: the file does not exist.
    """
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ValueError(f"{shortened(path, 300)} does not exist: check the path") from error
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
    """Drop every model. Its memory is freed once nothing else refers to it."""
    with _lock:
        _models.clear()


def size() -> int:
    """Number of models in the cache."""
    return len(_models)
