"""Options of a tuning run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..learn.schedule import DECAYS
from ..settings import setting

if TYPE_CHECKING:
    pass


log = logging.getLogger(__name__)
# what a method's options are where they are not given; those of `reinforce` are the paper's (4 epochs of COCO: 10^5 steps)
METHODS: dict[str, dict[str, Any]] = {
    "direct": {},
    "rloo": {"softness": 0.0, "batch": 2, "normalise_advantage": True},
    "reinforce": {
        "softness": 0.0,
        "lr": 1e-6,
        "rank": 0,
        "batch": 16,
        "kl_weight": 0.0,
        "caption_weight": 1.0,
        "patch_weight": 0.0,
        "directional_weight": 0.0,
    },
}


@dataclass(frozen=True)
class TuneConfig:
    """Options of a tuning run; `TuneConfig.of` takes those of a method."""

    method: str = setting("direct", "direct, rloo or reinforce (the paper's)")
    steps: int = setting(80, "of reward; 0 leaves the warm start alone")
    epochs: float = setting(0, "passes over all photos, instead of --steps; 0 is as many steps as said, of photos drawn")
    minutes: float = setting(0, "stop after so long; 0 is no limit")
    pairs_steps: int = setting(0, "of cross-entropy on made pairs before the reward")
    lr: float = setting(1e-3, "Adam on the adapter; after --warm it falls, and is constant for reinforce")
    warm: int = setting(10, "first steps, in which the learning rate rises; none for reinforce")
    decay: str = setting("cosine", "of the learning rate: cosine to 2 %, or linear to 0")
    pairs_lr: float = setting(3e-3, "the same for the warm start")
    rank: int = setting(8, "of the adapter, the style file grows with it; 0 tunes the decoder and output layer whole")
    batch: int = setting(4, "photos a step")
    samples: int = setting(4, "draws a photo, for rloo")
    pairs_batch: int = setting(16, "made pairs a step")
    size: int = setting(256, "px of a photo crop; a multiple of the translator's window")
    augment: bool = setting(True, "photos at random places, zooms and mirrored; no is the centre crop, the paper's")
    views: int = setting(4, "random crops of each output that CLIP sees")
    caption_weight: float = setting(0.0, 'of the paper\'s reward: whole picture to "{style} of {caption}"')
    patch_weight: float = setting(1.0, "of the crops' cosine to the style prompt")
    directional_weight: float = setting(1.0, "of the crops' direction from the photo, to the text's from \"a photo\"")
    content_weight: float = setting(0.0, "of the cosine of output and photo")
    kl_weight: float = setting(0.02, "pull to the base translator: content and image quality")
    kl_budget: float = setting(0.0, "nats a token; adapters beyond it are not kept, and the run stops. 0 is no limit")
    colour_weight: float = setting(0.0, "keeps the photo's colours (direct); 0 for styles that have their own palette")
    pairs_colour_weight: float = setting(0.0, "of the colours shown beside the cross-entropy on made pairs")
    pairs_weight: float = setting(0.0, "cross-entropy on made pairs beside the reward")
    softness: float = setting(
        0.5, "of the pictures CLIP sees, as when stylising; 0 is straight-through samples, one token a place"
    )
    normalise_advantage: bool = setting(False, "rloo: advantages of a photo to standard deviation 1")
    normalise: bool = setting(True, "pixels for CLIP by its mean and deviation; no is as the paper's authors did")
    check_every: int = setting(10, "steps between scores on the held-out photos")
    held_out: int = setting(4, "photos kept for them, at most a fifth of those given")
    patience: int = setting(6, "checks without a better score after which the run stops; 0 goes on to the end")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is not known: {', '.join(METHODS)}")
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r} is not known: {', '.join(DECAYS)}")
        if self.steps < 0 or self.pairs_steps < 0 or not 1 <= self.steps + self.pairs_steps <= 1_000_000:
            raise ValueError(f"steps {self.steps} (and {self.pairs_steps} on pairs): need 1 to 1,000,000 together")
        if min(self.batch, self.pairs_batch, self.views, self.check_every, self.held_out) < 1:
            raise ValueError("batch, pairs_batch, views, check_every and held_out must be 1 or more")
        if self.samples < 2:
            raise ValueError(f"samples {self.samples}: rloo judges a draw against the others, so it needs 2 or more")
        if not 0 < self.lr <= 1 or not 0 < self.pairs_lr <= 1:
            raise ValueError(f"learning rates {self.lr} and {self.pairs_lr} must lie between 0 and 1")
        if not any((self.caption_weight, self.patch_weight, self.directional_weight, self.content_weight)) and self.steps:
            raise ValueError("all weights of the reward are 0: nothing would be learnt; set one, or steps to 0")

    @classmethod
    def of(cls, method: str, **options: Any) -> TuneConfig:
        """The options of a method, and these on top. Raises ValueError for an unknown method or impossible options."""
        return cls(method=method, **{**METHODS.get(method, {}), **options})
