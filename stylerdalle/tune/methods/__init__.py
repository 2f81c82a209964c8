"""The tuning methods, by name. A new one is a file beside this one, and a line here."""

from __future__ import annotations

from .direct import DIRECT
from .method import Method
from .reinforce import REINFORCE
from .rloo import RLOO

METHODS: dict[str, Method] = {
    "direct": DIRECT,
    "rloo": RLOO,
    "reinforce": REINFORCE,
}
