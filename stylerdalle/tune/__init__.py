"""Tuning of a style: CLIP-Reward-Tune (StylerDALLE, arXiv 2303.09268, section 3.3)."""

from .config import TuneConfig
from .loop import Tuned, TuneState, tune
from .methods import METHODS

__all__ = ["METHODS", "TuneConfig", "TuneState", "Tuned", "tune"]
