"""Options of a tuning run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..settings import DECAYS, LINES, SEEDS, check_finite, setting
from .methods import METHODS

__all__ = ["METHODS", "TuneConfig"]
SUMMARIES = "; ".join(f"{name} {method.summary}" for name, method in METHODS.items())


@dataclass(frozen=True)
class TuneConfig:
    """Options of a tuning run; `TuneConfig.of` takes the defaults of a method."""

    method: str = setting("direct", f"how the reward is followed: {SUMMARIES}")
    steps: int = setting(80, "steps with the reward; 0: the warm start only")
    epochs: float = setting(0, "passes over all photos, in place of --steps; 0: --steps of photos drawn at random")
    minutes: float = setting(0, "stop after this time; 0: no limit")
    pairs_steps: int = setting(0, "steps of cross-entropy on made pairs before the reward (the warm start)")
    lr: float = setting(1e-3, "peak learning rate of Adam on the adapter")
    warm: int = setting(10, "first steps, in which the learning rate rises; reinforce has none")
    decay: str = setting("cosine", "of the learning rate: cosine to 2 %, or linear to 0; reinforce has none")
    pairs_lr: float = setting(3e-3, "peak learning rate of the warm start")
    rank: int = setting(8, "of the adapter; the style file grows with it; 0: the decoder and output layer whole")
    batch: int = setting(4, "photos a step")
    samples: int = setting(4, "samples of a photo (rloo)")
    pairs_batch: int = setting(16, "made pairs a step")
    size: int = setting(256, "side of a photo crop, px; a multiple of the translator's window")
    augment: bool = setting(True, "photos at random places, zooms and mirrored; off: centre crop (paper)")
    views: int = setting(4, "random crops of each output that CLIP sees")
    caption_weight: float = setting(0.0, 'weight of the paper\'s reward: whole picture to "{style} of {caption}"')
    patch_weight: float = setting(1.0, "weight of the cosine of the crops to the style prompt")
    directional_weight: float = setting(1.0, "weight of the crops' change from the photo along the text's from \"a photo\"")
    content_weight: float = setting(0.0, "weight of the cosine of output and photo")
    style_weight: float = setting(2.0, "weight of the style distance to the exemplars, if there are any")
    layout_weight: float = setting(1.0, "weight of the photo's layout beside it: the content distance of the feature network")
    critics_weight: float = setting(0.5, "weight of critics that learn to tell the exemplars from the pictures painted; 0: none")
    recognised_weight: float = setting(0.5, "weight of a recogniser that knows the exemplars from other works; 0: none")
    exemplar_size: int = setting(384, "short side of the exemplars as they are compared, px")
    kl_weight: float = setting(0.02, "weight of the KL to the base translator, which keeps content and image quality")
    kl_budget: float = setting(0.0, "nats a token: beyond it adapters are not kept and the run stops; 0: no limit")
    colour_weight: float = setting(0.0, "weight of the photo's colours (direct); 0 for styles with a palette of their own")
    pairs_colour_weight: float = setting(0.0, "weight of the made pictures' colours, beside the cross-entropy on made pairs")
    pairs_weight: float = setting(0.0, "weight of the cross-entropy on made pairs, beside the reward")
    softness: float = setting(
        0.5, "of the pictures that CLIP sees, as in stylize; 0: straight-through samples, one token a place (direct)"
    )
    keep_lines: float = setting(LINES, "of the photo's lines in the pictures that are judged, as in stylize (reinforce: 0)")
    normalise_advantage: bool = setting(False, "scale the advantages of a photo to standard deviation 1 (rloo)")
    normalise: bool = setting(True, "normalise pixels by CLIP's mean and deviation; off: as they are (the authors' code)")
    recompute: bool = setting(False, "compute the decoder's activations again for the gradient: less memory, more time")
    check_every: int = setting(10, "steps between scores on the held-out photos")
    held_out: int = setting(4, "photos held out, at most a fifth of those given")
    patience: int = setting(6, "checks without a better score after which the run stops; 0: never")
    seed: int = 0

    def __post_init__(self) -> None:
        check_finite(self)
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is not known: {', '.join(METHODS)}")
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r} is not known: {', '.join(DECAYS)}")
        if self.steps < 0 or self.pairs_steps < 0 or not 1 <= self.steps + self.pairs_steps <= 1_000_000:
            raise ValueError(f"steps {self.steps} (and {self.pairs_steps} on pairs): need 1 to 1,000,000 together")
        if min(self.batch, self.pairs_batch, self.views, self.check_every, self.held_out) < 1:
            raise ValueError("batch, pairs_batch, views, check_every and held_out must be 1 or more")
        if self.samples < 2:
            raise ValueError(f"samples {self.samples}: rloo compares each sample with the others, so it needs 2 or more")
        if not 0 < self.lr <= 1 or not 0 < self.pairs_lr <= 1:
            raise ValueError(f"learning rates {self.lr} and {self.pairs_lr} must lie between 0 and 1")
        if self.softness < 0 or self.minutes < 0 or self.kl_weight < 0:
            raise ValueError(f"softness {self.softness}, minutes {self.minutes} and kl_weight {self.kl_weight} must be 0 or more")
        if not 0 <= self.keep_lines <= 1:
            raise ValueError(f"keep_lines {self.keep_lines} is out of range: 0 (none) to 1 (as strong as the photo's)")
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed {self.seed} is out of range: 0 to {SEEDS - 1}")
        if self.exemplar_size < 64:
            raise ValueError(f"exemplar_size {self.exemplar_size} px is too small to show marks: need 64 or more")

    def check_reward(self, exemplars: bool) -> None:
        """Raises ValueError if every weight of the reward is 0; those of the exemplars count where there are any."""
        weights = [self.caption_weight, self.patch_weight, self.directional_weight, self.content_weight]
        weights += [self.style_weight, self.layout_weight, self.critics_weight, self.recognised_weight] if exemplars else []
        if self.steps and not any(weights):
            raise ValueError("all weights of the reward are 0, so nothing would be learnt: set one, or steps to 0")

    @classmethod
    def of(cls, method: str, **options: Any) -> TuneConfig:
        """The defaults of a method, replaced by these options.

        Raises:
            ValueError: an unknown method or impossible options.
        """
        defaults = METHODS[method].defaults if method in METHODS else {}
        return cls(method=method, **{**defaults, **options})
