"""How a style is learnt: CLIP-Reward-Tune (StylerDALLE, arXiv 2303.09268, section 3.3)."""

from .config import METHODS, TuneConfig
from .loop import Tuned, TuneState, tune

__all__ = ["METHODS", "TuneConfig", "TuneState", "Tuned", "tune"]
