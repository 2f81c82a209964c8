"""Which style a text means: one of the bundle's own, a style file, or a new one from the bundle's hypernetwork."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checkpoint, storage
from .bundle import Bundle
from .clip.scores import embed_texts
from .settings import HOSTED, command, did_you_mean, shortened
from .translator.hypernetwork import HyperNetwork
from .translator.style import Style, mix

NEAR = 0.85  # without a hypernetwork: a prompt with this cosine or more to a style's prompt (CLIP text embeddings) means it
FAR = 0.6  # with a hypernetwork: a prompt with a lower cosine to all prompts it was trained on gives a warning
AWAY = 0.5  # how far a negative prompt moves the embedding away from it, as a share of their difference
PROMPT_LIMIT = 1000  # characters; CLIP reads about 75 words
MAX_WEIGHT = 2.0  # of a style in a text: twice the change that was tuned
WEIGHTED = r"\s*(.*?)\s*:\s*([+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+|nan|inf(?:inity)?))\s*"  # NAME:WEIGHT
WORD = r"[^\W\d_]+"
LEARN = "Reward Tune (the template tune-a-style)" if HOSTED else command("tune")
log = logging.getLogger(__name__)


def list_styles(bundle: Bundle) -> list[Style]:
    """The bundle's own styles, in the order of their file names. Files that cannot be read are left out with a warning."""
    found = []
    for path in bundle.style_paths:
        try:
            found.append(bundle.load(checkpoint.load_style, path, bundle.device, torch.float32))
        except (ValueError, OSError) as error:
            log.warning("left out a style file: %s", error)
    return found


def find_style(bundle: Bundle, style: str | Style, negative: str = "") -> Style:
    """The style that a text means in a bundle: `StyleFinder.find` for a single text."""
    return StyleFinder(bundle).find(style, negative)


class StyleFinder:
    """Finds the styles that texts mean in one bundle. The bundle's styles and hypernetwork are opened once for all texts."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.found: dict[tuple[str, str], Style] = {}

    def find(self, style: str | Style, negative: str = "") -> Style:
        """The style meant by a name, a prompt, the path of a style file, or a Style itself.

        A text is compared with the names and then the prompts of the bundle's styles, ignoring case. Any other prompt goes to the
        bundle's hypernetwork; without one, the style whose prompt is nearest in CLIP's text space is taken if their cosine is at
        least NEAR. An empty text is the bundle's default style. Several texts with weights, `a pencil sketch:0.7, ukiyo-e:0.3`,
        are the weighted sum of their styles.

        Args:
            negative: a prompt that the style is moved away from; the style then always comes from the hypernetwork.

        Raises:
            ValueError: no style fits (the error lists the bundle's), or it was made for another translator (both hashes).
        """
        if isinstance(style, Style):
            return self._checked(self._given(style, negative))
        if (style, negative) not in self.found:
            self.found[style, negative] = self._checked(self._read(style, negative))
        return self.found[style, negative]

    @cached_property
    def styles(self) -> list[Style]:
        """The bundle's default style, where it has one, and its own."""
        return [*filter(None, [self.bundle.default_style]), *list_styles(self.bundle)]

    @cached_property
    def hypernetwork(self) -> HyperNetwork | None:
        """The bundle's hypernetwork, where it has one."""
        return self.bundle.hypernetwork

    def embed(self, text: str, others: Sequence[str]) -> tuple[Tensor, Tensor]:
        """CLIP's unit vectors of a prompt (E), without words unknown to CLIP, and of other texts as they are (B, E)."""
        embedded = embed_texts(self.bundle.clip, [self.known_words(text), *others])
        return embedded[0], embedded[1:]

    def known_words(self, text: str) -> str:
        """As without_unknown_words, with the prompts of the bundle's hypernetwork left whole."""
        prompts = self.hypernetwork.prompts if self.hypernetwork else ()
        return without_unknown_words(self.bundle.clip_path, text, prompts)

    def _checked(self, style: Style) -> Style:
        checkpoint.check_base(style, self.bundle.translator_path)
        style.check(self.bundle.translator)
        return style

    def _given(self, style: Style, negative: str) -> Style:
        if negative.strip():
            raise ValueError(
                "a negative prompt needs a style prompt, and a style from a file has none: leave the negative prompt empty"
            )
        return style

    def _read(self, text: str, negative: str) -> Style:
        if text.endswith(".safetensors"):
            style = self.bundle.load(checkpoint.load_style, Path(text), self.bundle.device, torch.float32)
            return self._given(style, negative)
        parts = blend(text, [style.name for style in self.styles])
        if len(parts) > 1:
            return mix([(self._match(part, negative), weight) for part, weight in parts], name=" ".join(text.split()))
        prompt, weight = parts[0]
        style = self._match(prompt, negative)
        return style if weight == 1 else mix([(style, weight)], name=style.name)

    def _match(self, text: str, negative: str) -> Style:
        """The style of one text without weights."""
        if self.bundle.default_style and not text.strip():
            return self.bundle.default_style
        text = check_prompt(text)
        for style in self.styles:
            if text.casefold() in (style.name.casefold(), style.prompt.casefold()) and not negative.strip():
                return style
        if self.hypernetwork:
            prompts = [style.prompt for style in self.styles if text.casefold() == style.name.casefold()]
            return self._make(self.hypernetwork, prompts[0] if prompts else text, negative)
        if negative.strip():
            raise ValueError(
                f"the bundle {self.bundle.name!r} has no hypernetwork, which a negative prompt needs: leave it empty"
            )
        return self._nearest(text)

    def _nearest(self, text: str) -> Style:
        """The bundle's style with the nearest prompt. Raises ValueError if none is near."""
        if self.styles:
            embedded, prompts = self.embed(text, [style.prompt for style in self.styles])
            similarity, index = (prompts @ embedded).max(0)
            if similarity >= NEAR:
                style = self.styles[int(index)]
                log.info("the prompt %r is read as the style %r (similarity %.2f)", text, style.name, similarity)
                return style
        listed = ", ".join(f"{style.name} ({style.prompt!r})" for style in self.styles) or "none"
        raise ValueError(
            f"the bundle {self.bundle.name!r} has no style for {shortened(text)!r}{self._hint(text)}; it has: {listed}. "
            f"Choose one of them, or learn this one with {LEARN}"
        )

    def _hint(self, text: str) -> str:
        """A style's name or prompt that is nearly the text, as a question."""
        return did_you_mean(text, [word for style in self.styles for word in (style.name, style.prompt) if word])

    def _make(self, network: HyperNetwork, text: str, negative: str) -> Style:
        """The style that the hypernetwork makes for a prompt; its metadata tells the nearest prompt it was trained on."""
        negative = " ".join(negative.split())
        with torch.inference_mode(False), torch.no_grad():
            embedded, others = self.embed(text, [self.known_words(negative)] if negative else [])
            embedded, others = embedded.to(network.mean), others.to(network.mean)
            similarity, nearest = network.nearest(embedded)
            for other in others:
                embedded = F.normalize(embedded + AWAY * (embedded - other), dim=-1)
            tensors, texture = network(embedded), network.textures_for(embedded)
        if similarity < FAR:
            log.warning(
                "the prompt %r is far from all prompts that this bundle was trained on (the nearest is %r, similarity %.2f), so "
                "the picture may not match it; %s proposes prompts, %s learns new ones",
                text,
                nearest,
                similarity,
                command("styles --near TEXT"),
                LEARN,
            )
        notes = {"near": f"{similarity:.2f} near to {nearest!r}"} | ({"negative": negative} if negative else {})
        said = [style.blocks for style in self.styles if style.prompt and style.prompt.casefold() in text.casefold()]
        return Style(tensors, text, text, storage.sha256(self.bundle.translator_path), notes, texture, max(said, default=0.0))


def near_prompts(bundle: Bundle, text: str, count: int = 12) -> list[tuple[str, float]]:
    """The `count` prompts known to the bundle that are nearest to a text, nearest first, with their CLIP text cosines."""
    text = check_prompt(text, "text")
    finder = StyleFinder(bundle)
    trained = finder.hypernetwork.prompts if finder.hypernetwork else ()
    known = list(dict.fromkeys([*(style.prompt for style in list_styles(bundle)), *trained]))
    if not known:
        return []
    embedded, prompts = finder.embed(text, known)
    similarity = prompts @ embedded
    best = similarity.argsort(descending=True)[:count].tolist()
    return [(known[i], float(similarity[i])) for i in best]


def blend(text: str, names: Collection[str] = ()) -> list[tuple[str, float]]:
    """The prompts and weights of `a:0.7, b:0.3`. A text without any weight is one prompt, including its commas.

    A time of day (10:30), a ratio (16:9, 1:2.35) and (word:1.3) are words, not weights. After a number, unless it ends a style's
    name, only 0.7 or .7 is a weight.

    Args:
        names: of styles, which may end in a number.

    Raises:
        ValueError: a weight is not between 0 and MAX_WEIGHT, or has a decimal comma.
    """
    if comma := re.search(r"[^\d\s:]\s*:\s*(\d),(\d+)\s*(,|$)", text):
        decimals = shortened(comma[2], 20)
        raise ValueError(f"the weight {comma[1]},{decimals} has a comma: write {comma[1]}.{decimals}")
    known = {name.casefold() for name in names}
    found: list[tuple[str, float | None]] = []
    for part in text.split(","):
        match = re.fullmatch(WEIGHTED, part, re.DOTALL | re.IGNORECASE)
        number = match and re.search(r"(^|\s)[\d.]+$", match[1]) and match[1].casefold() not in known
        if not match or (number and not re.fullmatch(r"0?\.\d+", match[2])):
            found.append((part.strip(), None))
            continue
        weight = float(match[2])
        if not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(
                f"the weight {shortened(match[2])} of {shortened(match[1])!r} is out of range: 0 to {MAX_WEIGHT:g}, such as "
                f"{shortened(match[1])}:0.7"
            )
        found.append((match[1], weight))
    if all(weight is None for _, weight in found):
        if re.search(r"\([^()]*:\s*\d*\.?\d+\s*\)", text):
            log.warning(
                "the prompt %r is read as it stands: a weight is written without brackets, such as 'ink:0.7, mosaic:0.3'", text
            )
        return [(text, 1.0)]
    return [(name, 1.0 if weight is None else weight) for name, weight in found]


def check_prompt(text: str, what: str = "style prompt") -> str:
    """The prompt with single blanks and without characters that print nothing.

    Raises:
        ValueError: it is empty or longer than PROMPT_LIMIT characters.
    """
    text = " ".join("".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c.isspace() else " " for c in text).split())
    if not text:
        raise ValueError(f"the {what} is empty: enter a style, such as 'a Van Gogh style oil painting'")
    if len(text) > PROMPT_LIMIT:
        raise ValueError(f"the {what} has {len(text)} characters, at most {PROMPT_LIMIT} are read: shorten it")
    return text


def trained_words(clip_path: str | Path) -> set[str]:
    """The words that a small CLIP was trained on, from its file's metadata `words`; empty where it does not list them."""
    return set(storage.read_metadata(clip_path).get("words", "").split())


def unknown_words(clip_path: str | Path, text: str) -> list[str]:
    """The words of a text that a small CLIP was not trained on; none where its file does not list them."""
    known = trained_words(clip_path)
    return [word for word in re.findall(WORD, text.lower()) if known and word not in known]


def warn_of_unknown_words(clip_path: str | Path, text: str) -> list[str]:
    """`unknown_words`, with one warning of them."""
    unknown = unknown_words(clip_path, text)
    if unknown:
        known = trained_words(clip_path)
        log.warning(
            "this bundle's CLIP was not trained on %s: its embedding of this text is unreliable; "
            "use words for media and styles that it knows, or a bundle with the official CLIP",
            ", ".join(f"{word!r}{did_you_mean(word, known)}" for word in unknown),
        )
    return unknown


def without_unknown_words(clip_path: str | Path, text: str, prompts: Collection[str] = (), warn: bool = True) -> str:
    """The text without the words that the CLIP was not trained on, because they distort the embedding; warns of them.

    The text stays whole if it is one of `prompts`, or if no word of four or more letters would be left.
    """
    if text in prompts:
        return text
    unknown = (warn_of_unknown_words if warn else unknown_words)(clip_path, text)
    left = " ".join(re.sub(WORD, lambda word: "" if word[0].lower() in unknown else word[0], text).split())
    return left if re.search(r"[^\W\d_]{4}", left) else text
