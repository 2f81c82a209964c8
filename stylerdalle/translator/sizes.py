"""Sizes of a hypernetwork (hypernetwork.py), without torch: the command line reads them for its help."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..settings import setting

HYPER_KINDS = ("lora", "film")


@dataclass(frozen=True)
class HyperConfig:
    """Sizes of a hypernetwork, and how it reads prompts.

    Raises:
        ValueError: impossible sizes, or settle out of range.
    """

    kind: str = "lora"
    embed_dim: int = setting(256, "of CLIP's text embeddings")
    hidden: int = 256
    rank: int = setting(90, "of the basis of each matrix, for lora")
    basis: int = setting(32, "learnt changes of each small parameter, of which a prompt sets the weights")
    noise: float = setting(0.3, "deviation of noise on the standardised embedding in training: similar prompts then agree")
    settle: float = setting(0.7, "how far a prompt moves towards the nearest prompts trained on, in use; 0: it stays")

    def __post_init__(self) -> None:
        if self.kind not in HYPER_KINDS:
            raise ValueError(f"kind {self.kind!r} is not known: {', '.join(HYPER_KINDS)}")
        for name, value in asdict(self).items():
            if name in ("embed_dim", "hidden", "rank", "basis") and value < 1:
                raise ValueError(f"{name} is {value}: it must be 1 or more")
        if not 0 <= self.settle <= 1:
            raise ValueError(f"settle is {self.settle}: it must lie between 0 and 1")
