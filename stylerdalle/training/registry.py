"""The registry of styles: one entry each, with name, prompts, and what its pairs are made by.

A new style is one entry of STYLES. Its pairs are painted by the teacher, learnt from the works that teacher_styles.py names for
it, or made by a filter. If no filter fits, write one in filters/ (a function, or a file of several), and if no pattern fits,
write one in filters/patterns.py. Then `python -m stylerdalle.training.joint` trains it.

    painted = find("van-gogh").apply(photo, numpy.random.default_rng(0))   # uint8 (H, W, 3), sides of 32 pixels or more
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..tune.config import TuneConfig
from .filters import Filter, drawings, paintings, patterns, pieces, prints
from .filters.marks import Marks, guide, plain

# kl_weight: low, because a style from made pairs is far from the base translator; more of it brings the photo's colours back.
# lr: low, because the small CLIP likes drawings better with blue and brown blots in them
TUNING = TuneConfig(steps=5, check_every=5, pairs_weight=1.0, kl_weight=0.005, lr=1e-4)


@dataclass(frozen=True)
class Recipe:
    """How a style is made.

    Attributes:
        name: as in the bundle.
        prompts: three to five wordings; made pairs have them as captions.
        filter: makes pairs (photo, filtered photo); None: the teacher alone paints them.
        stream: number of the filter's random stream in made shards (shards.py). A new filter takes the next free number, because
            a changed number changes the shards.
        pattern: its marks; None for a filter without marks. The tokens of the pattern are the style's texture.
        main: index in `prompts` of the one that the style is tuned for.
        bundled: whether the bundle has this style; the others only make pairs.
        tuning: options of the reward tuning that follows the joint training.
        pairs: how many made pairs it learns from beside the reward.
        blocks: as of the style (translator/style.py).
    """

    name: str
    prompts: tuple[str, ...]
    filter: Filter | None = None
    stream: int = -1
    pattern: Callable[[], Marks] | None = None
    main: int = 0
    bundled: bool = True
    tuning: TuneConfig = TUNING
    pairs: int = 100
    blocks: float = 0.0

    @property
    def prompt(self) -> str:
        """The prompt that the style is tuned for."""
        return self.prompts[self.main]

    @property
    def key(self) -> str:
        """The name with underscores, as lists of prompts and made shards spell it."""
        return self.name.replace("-", "_")

    @cached_property
    def marks(self) -> Marks:
        """The marks of the whole pattern; no marks without a pattern."""
        return self.pattern() if self.pattern else plain()

    def picture(self) -> np.ndarray | None:
        """The pattern on plain grey, uint8 (PATTERN_SIDE, PATTERN_SIDE, 3), which repeats without a seam; None without one."""
        if self.pattern is None:
            return None
        return (guide(self.marks).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    def apply(self, image: np.ndarray, generator: np.random.Generator, place: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Filter a picture: uint8 (H, W, 3) -> the same shape. The same seed gives the same picture.

        Args:
            image: sides of 32 pixels or more.
            place: (y, x) of the picture's top left pixel on the pattern.

        Raises:
            ValueError: another shape or type of picture, one that is too small, or a style without a filter.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a picture must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        if min(height, width) < 32:
            raise ValueError(f"a picture must be at least 32 pixels wide and high, got {(height, width)}")
        if self.filter is None:
            raise ValueError(f"{self.name} has no filter, its pairs are painted by the teacher; filters: {', '.join(FILTERED)}")
        return self.filter(image, generator, self.marks.at(place, (height, width)))


_ENTRIES = (
    Recipe(
        "van-gogh",
        (
            "a Van Gogh style oil painting",
            "an oil painting in the style of Vincent van Gogh",
            "a post-impressionist oil painting with swirling brush strokes",
            "a Van Gogh painting",
        ),
        paintings.van_gogh,
        stream=3,
        pattern=patterns.Strokes(9, 54, 0.17, 0.035, 0.32, swirl=(1, 4), steady=0.2, seed=1),
    ),
    Recipe(
        "ukiyo-e",
        ("a ukiyo-e print", "a Japanese woodblock print", "a ukiyo-e woodblock print by Hiroshige", "ukiyo-e"),
        prints.ukiyo_e,
        stream=4,
        pattern=patterns.woodgrain,
    ),
    Recipe(
        "pencil-sketch",
        (
            "a pencil sketch",
            "a pencil drawing",
            "a graphite sketch on paper",
            "a hand-drawn pencil sketch with hatching",
        ),
        drawings.pencil_sketch,
        stream=0,
        pattern=patterns.hatching,
    ),
    Recipe(
        "pixel-art",
        ("pixel art", "a pixel art picture", "8-bit pixel art", "retro video game pixel art"),
        prints.pixel_art,
        stream=1,
        blocks=1.0,
    ),
    Recipe(
        "watercolour",
        ("a watercolour painting", "a watercolor painting", "a watercolour on paper", "watercolor"),
        paintings.watercolour,
        stream=5,
        pattern=patterns.washes,
    ),
    Recipe(
        "comic",
        ("a comic book illustration", "a comic book panel", "comic art with halftone dots", "a comic"),
        prints.comic,
        stream=6,
        pattern=patterns.Halftone(16),
    ),
    Recipe(
        "impressionism",
        (
            "an impressionist oil painting",
            "impressionism",
            "an impressionist painting in broken dabs of light",
            "a painting by Claude Monet",
        ),
        paintings.impressionism,
        stream=13,
        pattern=patterns.Strokes(11, 24, 0.09, 0.05, 0.20, swirl=(3, 7), steady=0.45, seed=2),
    ),
    Recipe(
        "pointillism",
        ("a pointillist painting", "a pointillism painting", "a painting made of dots", "a painting by Georges Seurat"),
        paintings.pointillism,
        stream=10,
        pattern=patterns.dots,
    ),
    Recipe(
        "fauvism",
        ("a fauvist painting", "fauvism", "a fauvism painting in wild pure colours", "a painting by Andre Derain"),
        paintings.fauvism,
        stream=14,
        pattern=patterns.Strokes(17, 52, 0.10, 0.035, 0.14, swirl=(2, 4), steady=0.3, seed=3),
    ),
    Recipe(
        "cubism",
        ("a cubist painting", "cubism", "a cubist painting of angular facets", "analytic cubism"),
        pieces.cubism,
        stream=16,
        pattern=patterns.facets,
    ),
    Recipe(
        "baroque",
        ("a baroque oil painting", "baroque", "a baroque painting with dark chiaroscuro", "an old master painting"),
        paintings.baroque,
        stream=15,
        pattern=patterns.Strokes(8, 40, 0.07, 0.012, 0.12, swirl=(2, 4), steady=0.6, seed=4),
    ),
    Recipe(
        "charcoal",
        ("a charcoal drawing", "a charcoal sketch", "a drawing in black charcoal on paper"),
        drawings.charcoal,
        stream=11,
        pattern=patterns.coal,
    ),
    Recipe(
        "ink",
        ("an ink drawing", "a black ink drawing", "a pen and ink illustration", "black ink on white paper"),
        drawings.ink,
        stream=12,
        pattern=patterns.hatching,
    ),
    Recipe(
        "pop-art",
        ("pop art", "a pop art picture", "a pop art screen print", "pop art in the style of Andy Warhol"),
        prints.pop_art,
        stream=7,
        pattern=patterns.Halftone(32),
    ),
    Recipe(
        "anime",
        ("anime", "an anime picture", "anime cel shading", "a frame of an anime film"),
        prints.anime,
        stream=18,
    ),
    Recipe(
        "art-nouveau",
        (
            "an art nouveau poster",
            "art nouveau",
            "an art nouveau illustration with strong outlines",
            "a poster by Alphonse Mucha",
        ),
        prints.art_nouveau,
        stream=17,
        pattern=patterns.curls,
    ),
    Recipe(
        "stained-glass",
        ("stained glass", "a stained glass window", "a picture in stained glass", "leaded stained glass"),
        pieces.stained_glass,
        stream=8,
        pattern=patterns.panes,
        main=1,
    ),
    Recipe(
        "pixel-art-4",
        ("pixel art", "16-bit pixel art", "a detailed pixel art picture", "pixel art of an old video game"),
        prints.pixel_art_4,
        stream=2,
        bundled=False,
    ),
    Recipe(
        "mosaic",
        ("a mosaic", "a mosaic of small tiles", "a Roman mosaic", "a picture made of mosaic tiles"),
        pieces.mosaic,
        stream=9,
        bundled=False,
    ),
    Recipe(
        "munch",
        ("a painting by Edvard Munch", "a Munch style painting", "an Edvard Munch painting in wavy lines"),
    ),
    Recipe("expressionism", ("an expressionist painting", "expressionism", "a painting by Ernst Ludwig Kirchner")),
    Recipe("klimt", ("a painting by Gustav Klimt", "a Klimt style painting", "a golden painting by Gustav Klimt")),
    Recipe(
        "cezanne",
        ("a painting by Paul Cezanne", "a Cezanne style painting", "a post-impressionist landscape by Cezanne"),
    ),
    Recipe(
        "gauguin",
        ("a painting by Paul Gauguin", "a Gauguin style painting", "a post-impressionist painting by Gauguin"),
    ),
    Recipe(
        "kandinsky",
        ("a painting by Wassily Kandinsky", "an abstract painting", "a Kandinsky style abstract painting"),
    ),
    Recipe(
        "turner",
        ("a painting by William Turner", "a Turner style oil painting", "a romantic painting of the sea by Turner"),
    ),
    Recipe("chinese-ink", ("a Chinese ink painting", "a Chinese ink wash painting", "a Chinese landscape in ink")),
    Recipe("red-chalk", ("a red chalk drawing", "a drawing in red chalk", "a red chalk drawing by an old master")),
    Recipe(
        "wood-engraving",
        ("a wood engraving", "a wood engraving in black and white", "a wood engraving in an old book"),
    ),
    Recipe("pastel", ("a pastel drawing", "a pastel by Edgar Degas", "pastel on paper")),
    Recipe(
        "manuscript",
        ("an illuminated manuscript", "a medieval manuscript", "a miniature in a medieval manuscript"),
    ),
    Recipe("futurism", ("a futurist painting", "futurism", "a painting by Umberto Boccioni")),
)
STYLES = {recipe.name: recipe for recipe in _ENTRIES}
BUNDLED = tuple(name for name, recipe in STYLES.items() if recipe.bundled)  # in the order of joint training
FILTERED = tuple(name for name, recipe in STYLES.items() if recipe.filter)  # filter_names.py lists them without torch


def style_name(text: str) -> str:
    """A style's name as the registry spells it: "van_gogh" -> "van-gogh"."""
    return text.replace("_", "-")


def find(name: str) -> Recipe:
    """The recipe of a style, whose name may be spelled with - or with _. Raises ValueError for an unknown one."""
    if style_name(name) not in STYLES:
        raise ValueError(f"unknown style {name!r}; choose one of: {', '.join(STYLES)}")
    return STYLES[style_name(name)]
