"""What CLIP's training says of pictures: captions, wordings of their styles, words for recoloured views, classes of styles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..learn.pictures import Picture
from .clip import caption_of, class_of, prompts_of, used_tokens, words
from .filters.tones import TONES
from .registry import STYLES
from .teacher_styles import MANNERS
from .views import EXEMPLARS

REAL = (  # styles of the registry with filters that real works show better
    *("van-gogh", "ukiyo-e", "impressionism", "pointillism", "fauvism", "cubism", "baroque", "art-nouveau", "pixel-art"),
)
OF_AN_ARTIST = re.compile(r" by | in the style of ")
TONE_WORDS: dict[str, tuple[str, ...]] = {  # forms for a noun without its article
    "grey": ("a black and white {}", "a grey {}", "a {} without colour"),
    "sepia": ("a brown {}", "a sepia {}", "a vintage {}", "an old brown {}"),
    "noir": ("a film noir {}", "a dark black and white {}"),
    "negative": ("a {} in white on black", "a white {} on black paper"),
    "red": ("a red {}", "a {} in red"),
    "blue": ("a blue {}", "a {} in blue"),
    "green": ("a green {}", "a {} in green"),
    "purple": ("a purple {}", "a {} in purple"),
    "pink": ("a pink {}", "a {} in pink"),
    "golden": ("a golden {}", "a {} at sunset", "a {} of the evening", "a {} in golden light"),
    "autumn": ("a {} of autumn", "an autumn {}", "a {} in autumn colours"),
    "cold": ("a cold {}", "a {} of winter", "a {} of a cold winter morning", "a {} of snow"),
    "pale": ("a pale {}", "a misty {}", "a {} in the mist", "a {} of a misty morning"),
    "dark": ("a dark {}",),
    "night": ("a {} at night", "a {} of the night", "a {} of a night scene", "a night {}"),
}


@dataclass(frozen=True)
class StyleClass:
    """A style that pictures are classified as.

    Attributes:
        name: the pictures' `style`, or "photo".
        prompts: wordings that stand for it.
        common: whether it has many pictures.
        always: whether it is among the classes of every step, as common styles and those of exemplars are.
    """

    name: str
    prompts: tuple[str, ...]
    common: bool
    always: bool


def without_replaced(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures without those made by filters in styles that real works show."""
    replaced = {STYLES[name].prompts[0] for name in REAL}
    return [p for p in pictures if p.kind != "made" or p.source == EXEMPLARS or p.style not in replaced]


def wordings_of(style: str, kind: str) -> list[str]:
    """The style's name in every template of its kind, and the registry's prompts for it that name no artist."""
    recipe = STYLES.get(style.replace(" ", "-"))
    return [*prompts_of(style, kind), *(text for text in (recipe.prompts if recipe else ()) if not OF_AN_ARTIST.search(text))]


def style_classes(pictures: Sequence[Picture], least: int, rare: int = 2) -> list[StyleClass]:
    """The classes: styles of `rare` or more pictures and of exemplars; common from `least` pictures on. Photos are one class."""
    count = Counter(class_of(p) or "photo" for p in pictures)
    kinds = {class_of(p) or "photo": p.kind for p in pictures if p.kind not in ("photo", "wallpaper")}
    exemplars = {p.style for p in pictures if p.source == EXEMPLARS}
    kinds["photo"] = "photo"
    return [
        StyleClass(name, tuple(wordings_of(name, kind)), count[name] >= least, count[name] >= least or name in exemplars)
        for name, kind in sorted(kinds.items())
        if count[name] >= rare or name in exemplars or name == "photo"
    ]


def exceptions(picture: Picture, classes: Sequence[StyleClass]) -> list[int]:
    """Classes other than its own that a picture's captions name: Monet's works are impressionism, and his name is no error."""
    said = " | ".join(picture.captions).casefold()
    return [k for k, c in enumerate(classes) if c.name != class_of(picture) and c.name.casefold() in said]


def sentence_of(picture: Picture, shade: int, rng: np.random.Generator) -> str:
    """A caption for a view of a picture; `shade` is the number of the view's tone, or -1."""
    if shade < 0:
        if picture.kind not in ("photo", "wallpaper") and picture.style and rng.random() < 0.25:
            texts = wordings_of(picture.style, picture.kind)
            return texts[rng.integers(len(texts))]
        return caption_of(picture, rng)
    noun = noun_of(picture, rng)
    forms = TONE_WORDS[list(TONES)[shade]]
    return forms[rng.integers(len(forms))].format(noun)


def noun_of(picture: Picture, rng: np.random.Generator) -> str:
    """A short wording for a picture without its article: "ukiyo-e print"."""
    if picture.source == EXEMPLARS:
        texts = [text for text in picture.captions if len(text.split()) <= 6 and text[:2] in ("a ", "an")]
    else:
        texts = wordings_of(picture.style or "photo", picture.kind)
    return re.sub(r"^an? ", "", texts[rng.integers(len(texts))] if texts else picture.style)


def all_wordings(pictures: Sequence[Picture]) -> list[str]:
    """Further texts that training may say: of styles, and of tones."""
    kinds = {(p.style, p.kind) for p in pictures if p.style}
    tones = [form.format("") for forms in TONE_WORDS.values() for form in forms]
    return [*tones, *sorted({text for style, kind in kinds for text in wordings_of(style, kind)})]


def known_tokens(pictures: Sequence[Picture]) -> Tensor:
    """As `clip.used_tokens`, with those of all wordings."""
    return used_tokens([*pictures, Picture("", b"", tuple(all_wordings(pictures)))])


def known_words(pictures: Sequence[Picture], least: int) -> list[str]:
    """As `clip.words`, with all words that classes of the style term have, and those of tones and of exemplars, which are drawn
    often."""
    texts = [form.format("") for forms in TONE_WORDS.values() for form in forms]
    texts += [text for name in MANNERS for text in STYLES[name].prompts]
    texts += [text for p in pictures if p.source == EXEMPLARS for text in p.captions if len(text.split()) <= 6]
    texts += [text for c in style_classes(pictures, least) for text in c.prompts]
    found = {word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())}
    return sorted(found | set(words(pictures)))
