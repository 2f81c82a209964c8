"""The options of the polish (polish.py)."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import SOFTNESS


@dataclass(frozen=True)
class PolishConfig:
    """Options of the polish; the defaults are the recipe of the bundled files."""

    steps: int = 1_000_000  # the run ends at this step, or earlier after its minutes
    minutes: float = 6  # of the run; 0: no limit
    styles: int = 5  # with works, of a step, taken in turn; and one of those without
    batch: int = 8  # pictures of each of them
    pairs: int = 4  # windows of pairs of each of them
    base: int = 8  # windows of the base translator, which stays the identity
    round_trips: int = 6  # photos; and as many works
    side: int = 28  # tokens a side of a picture: windows overlap in it as they do in use
    lr: float = 5e-5  # peak learning rate of Adam on the translator; all fall on a cosine to 2 %
    adapter_lr: float = 7e-4
    decoder_lr: float = 5e-5
    critic_lr: float = 3e-4  # constant
    alone: int = 60  # first steps, in which only the critics and the decoder's round trips learn
    critics: float = 0.5  # weights of the parts of the loss: the critics' score,
    style: float = 0.5  # statistics of features against the works',
    text: float = 0.2  # 1 - cosine of picture and prompt in CLIP,
    recognised: float = 1.0  # cross-entropy of the style among all styles (features/recogniser.py), 0: no such part,
    content: float = 2.0  # features of the photo, times the style's own weight,
    subject: float = 0.5  # the same of the critics' deepest layer, which knows what is shown,
    layout: float = 2.0  # colours of large areas follow the photo's,
    calm: float = 0.3  # marks in plain places that works leave calm (faults.py),
    repetition: float = 5.0  # marks that repeat from token to token (faults.py),
    hue: float = 1.0  # hues of places far from the photo's, in styles of natural colours (faults.py),
    marks: float = 0.05  # cross-entropy on pairs of styles with works,
    kept: float = 1.0  # the same of styles without works,
    base_weight: float = 1.0  # of the base translator,
    fidelity: float = 1.0  # of round trips
    hard: float = 0.3  # share of the steps in which a place shows its likeliest token alone, not a mixture
    softness: float = SOFTNESS  # of mixtures, as in use
    neighbours: int = 16  # codes that share a soft target of the pairs
    target_softness: float = 0.25
    plain: float = 0.25  # share of the contents from the plainest quarter: skies, walls, where faults repeat
    kept_decoder: float = 0.1  # share of the decoder as it was in the one that is saved (see `between`)
    kept_styles: float = 0.0  # share of the adapters as they were in the ones that are saved
    size: int = 192  # px of the parts of the pictures that the critics see, cut at random
    crops: int = 192  # of a style's works, made at the start; and as many of its labelled pictures
    zoom: tuple[float, float] = (0.4, 1.0)  # px of such a crop per px of the work
    labelled_zoom: tuple[float, float] = (1.0, 1.5)  # the same of the labelled pictures
    seed: int = 0
