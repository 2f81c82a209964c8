"""Which tokenizers there are, by the `type` in a file's metadata. A new one is a file beside this and a line here."""

from __future__ import annotations

from .dvae import DVAE
from .vqgan import VQGAN

TOKENIZERS: dict[str, type[DVAE] | type[VQGAN]] = {"dvae": DVAE, "vqgan": VQGAN}
