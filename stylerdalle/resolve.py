"""What style a text means: one of the bundle's own, a file, or, where the bundle has a network for any prompt, a new one."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
import torch.nn.functional as F

from . import checkpoint, storage
from .bundle import Bundle
from .clip import scores as reward
from .translator.hypernetwork import HyperNetwork
from .translator.style import Style, mix

NEAR = 0.85  # without such a network: a prompt at least this close (CLIP text cosine) to a style's own prompt means that style
FAR = 0.6  # with one: a prompt less close than this to all that it was trained on is warned of
AWAY = 0.5  # how far a negative prompt leads away, as a share of the distance of the two embeddings
PROMPT_LIMIT = 1000  # characters; CLIP reads about 75 words
log = logging.getLogger(__name__)


def list_styles(bundle: Bundle) -> list[Style]:
    """The bundle's own styles, by file name."""
    return [bundle.load(checkpoint.load_style, path, bundle.device, torch.float32) for path in bundle.style_paths]


def find_style(bundle: Bundle, style: str | Style, negative: str = "") -> Style:
    """The style meant by a name, a prompt, a style file's path, or a Style itself.

    A text is matched to the bundle's styles by name, then by prompt (both without regard to case). Any other prompt is read by
    the bundle's network; where it has none, the style whose prompt is nearest in CLIP's text space is taken, if that is at
    least NEAR. An empty text is the bundle's default style. Several texts, `a pencil sketch:0.7, ukiyo-e:0.3`, are the
    weighted sum of their styles.

    Args:
        negative: a prompt that the style is led away from; for this the prompt is always read by the network.

    Raises:
        ValueError: nothing fits (the styles are listed), or the style belongs to another translator (both hashes).
    """
    if isinstance(style, Style) or style.endswith(".safetensors"):
        if negative.strip():
            raise ValueError("a negative prompt needs a style prompt to lead away from: a style of its own file has none")
        found = (
            style if isinstance(style, Style) else bundle.load(checkpoint.load_style, Path(style), bundle.device, torch.float32)
        )
    elif len(parts := blend(style)) > 1:
        found = mix([(_match(bundle, text, negative), weight) for text, weight in parts], name=" ".join(style.split()))
    else:
        text, weight = parts[0]
        found = _match(bundle, text, negative)
        found = found if weight == 1 else mix([(found, weight)], name=found.name)
    checkpoint.check_base(found, bundle.translator_path)
    found.check(bundle.translator)
    return found


def blend(text: str) -> list[tuple[str, float]]:
    """The prompts and weights of a text: `a:0.7, b:0.3`; a text without any weight is one prompt, commas and all."""
    parts = [re.fullmatch(r"\s*(.*?)\s*(?::\s*(-?\d+\.?\d*|-?\.\d+))?\s*", part, re.DOTALL) for part in text.split(",")]
    found = [(part[1], part[2]) for part in parts if part]
    if not any(weight for _, weight in found):
        return [(text, 1.0)]
    return [(name, float(weight or 1)) for name, weight in found]


def check_prompt(text: str, what: str = "style prompt") -> str:
    """The prompt without outer blanks. Raises ValueError where it is empty or longer than PROMPT_LIMIT characters."""
    text = " ".join(text.split())
    if not text:
        raise ValueError(f"the {what} is empty: say a style, such as 'a Van Gogh style oil painting'")
    if len(text) > PROMPT_LIMIT:
        raise ValueError(f"the {what} has {len(text)} characters, at most {PROMPT_LIMIT} are read: shorten it")
    return text


def warn_of_unknown_words(clip_path: str | Path, text: str) -> list[str]:
    """The words of a text that a small CLIP never learnt (its metadata `words` lists those it did), with one warning."""
    known = set(storage.read_metadata(clip_path).get("words", "").split())
    unknown = [word for word in re.findall(r"[^\W\d_]+", text.lower()) if known and word not in known]
    if unknown:
        log.warning(
            "this bundle's CLIP never learnt %s: what it makes of this text means little; "
            "use words for media and styles that it knows, or a bundle with the official CLIP",
            ", ".join(repr(word) for word in unknown),
        )
    return unknown


def understood(bundle: Bundle, text: str) -> str:
    """The text without words that the bundle's CLIP never learnt, of which there is a warning: they lead it astray. A text that
    has no other word of four letters or more, or that its network was trained on, stays whole."""
    if bundle.hypernetwork and text in bundle.hypernetwork.prompts:
        return text
    unknown = warn_of_unknown_words(bundle.clip_path, text)
    left = " ".join(re.sub(r"[^\W\d_]+", lambda word: "" if word[0].lower() in unknown else word[0], text).split())
    return left if re.search(r"[^\W\d_]{4}", left) else text


def near_prompts(bundle: Bundle, text: str, count: int = 12) -> list[tuple[str, float]]:
    """Prompts that the bundle knows, nearest to a text first, with their similarity: cosines of CLIP's text embeddings."""
    text = check_prompt(text, "text")
    network = bundle.hypernetwork
    known = list(dict.fromkeys([*(style.prompt for style in list_styles(bundle)), *(network.prompts if network else ())]))
    if not known:
        return []
    embedded = reward.embed_texts(bundle.clip, [understood(bundle, text), *known])
    similarity = embedded[1:] @ embedded[0]
    best = similarity.argsort(descending=True)[:count].tolist()
    return [(known[i], float(similarity[i])) for i in best]


def _match(bundle: Bundle, text: str, negative: str = "") -> Style:
    if bundle.default_style and not text.strip():
        return bundle.default_style
    text = check_prompt(text)
    styles = [*filter(None, [bundle.default_style]), *list_styles(bundle)]
    for style in styles:
        if text.casefold() in (style.name.casefold(), style.prompt.casefold()) and not negative.strip():
            return style
    network = bundle.hypernetwork
    if network:
        prompts = [style.prompt for style in styles if text.casefold() == style.name.casefold()]
        return _made(bundle, network, prompts[0] if prompts else text, negative)
    if negative.strip():
        raise ValueError(
            f"the bundle {bundle.name!r} has no network for any prompt, which a negative prompt needs: leave it empty"
        )
    listed = ", ".join(f"{s.name} ({s.prompt!r})" for s in styles) or "none"
    if styles:
        near = reward.embed_texts(bundle.clip, [understood(bundle, text), *(s.prompt for s in styles)])
        similarity, index = (near[1:] @ near[0]).max(0)
        if similarity >= NEAR:
            found = styles[int(index)]
            log.info("the prompt %r is taken as the style %r (similarity %.2f)", text, found.name, similarity)
            return found
    raise ValueError(
        f"the bundle {bundle.name!r} has no style for {text!r}; it has: {listed}. "
        "Choose one of them, or learn this one with `stylerdalle tune` (in ComfyUI: the tune-a-style workflow)"
    )


def _made(bundle: Bundle, network: HyperNetwork, text: str, negative: str) -> Style:
    """The style that the bundle's network makes of a prompt; its metadata says how near to what the network knows."""
    negative = " ".join(negative.split())
    texts = [understood(bundle, part) for part in (text, negative) if part]
    with torch.inference_mode(False), torch.no_grad():
        embedded = reward.embed_texts(bundle.clip, texts)
        said, *others = embedded.to(network.mean)
        similarity, nearest = network.nearest(said)
        for other in others:
            said = F.normalize(said + AWAY * (said - other), dim=-1)
        tensors, texture = network(said), network.texture(said)
    near = f"{similarity:.2f} near to {nearest!r}"
    if similarity < FAR:
        log.warning(
            "the prompt %r is far from all that this bundle was trained on (nearest, at %.2f: %r): the picture may have little "
            "to do with it; `stylerdalle styles --near` proposes prompts, `stylerdalle tune` learns new ones",
            text,
            similarity,
            nearest,
        )
    notes = {"near": near} | ({"negative": negative} if negative else {})
    return Style(tensors, text, text, storage.sha256(bundle.translator_path), notes, texture)
