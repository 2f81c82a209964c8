"""Tuning of a style: CLIP-Reward-Tune (StylerDALLE, arXiv 2303.09268, section 3.3).

Names are imported on first use: the options (config.py, methods/) are read by the command line without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TuneConfig
    from .loop import Tuned, TuneState, tune
    from .methods import METHODS

__all__ = ["METHODS", "TuneConfig", "TuneState", "Tuned", "tune"]
MODULES = {"METHODS": "methods", "TuneConfig": "config", "TuneState": "loop", "Tuned": "loop", "tune": "loop"}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(f".{MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
