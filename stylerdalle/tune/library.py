"""The library of exemplars: works of art in the public domain, and which of them are near to a prompt.

A library is a tar shard (learn/sources.py): of each work KEY.webp and KEY.json with artist, title, year, style, source, licence
and more; ATTRIBUTION.txt lists them all. `python -m stylerdalle.training.library` packs it.

Words decide which works are near to a prompt, by the share of the prompt's words that a work's artist, style and title have, as
in full-text search (inverse document frequency: Sparck Jones 1972). CLIP orders works of equal words. CLIP alone cannot decide:
by the mini bundle's CLIP of November 2026, 18 % of the three works nearest to "a painting in the style of STYLE" have that style
(benchmarks/library.py).
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bundle import Bundle
from ..clip.protocol import CLIPModel
from ..clip.scores import embed_images, embed_texts
from ..features import FeatureNetwork
from ..learn.crops import centre_crop, to_tensor
from ..learn.pictures import Picture, key_of
from ..learn.sources import entries, note_of, read
from ..resolve import check_prompt, without_unknown_words
from .config import TuneConfig
from .exemplars import Exemplars
from .methods import METHODS

log = logging.getLogger(__name__)
REQUIRED = ("artist", "title", "year", "source", "licence")  # what must be known of a work
MOST = 3  # works that are used for one prompt
LEAST = 0.4  # share of a prompt's words that a work needs to be used: "pop art" and "a comic book page" have no work
NEXT = 0.75  # of the nearest work's score, that a further work needs
NAMED, TOLD = 0.9, 0.5  # a word in artist, style or medium; a word in title or captions, which tell what is shown
COSINE = 0.1  # weight of CLIP's cosine beside the share of words
UNKNOWN = 3.0  # weight of a word that no work has; a word that one work in 20 has weighs as much
USUAL = 100  # works; in a smaller library words are weighed as if it had so many, or none of its words would tell anything
ENOUGH = 2.0  # weight of all words of a prompt, at least: "an oil painting" has less, and no work is near to it
PHOTOS = 48  # that the recogniser of exemplars sees, at most
PLAIN = {"th", "and", "with", "for", "from", "lik", "manner", "styl", "old"} | {  # stems that name no style
    *("paint", "pictur", "imag", "art", "artwork", "draw", "sketch", "print", "illustration")
}
SUBJECTS = {"landscap", "seascap", "portrait", "still", "lif"}  # stems that tell what is shown, also in the name of a style
ENDINGS = r"(?<=...)(icism|isms?|istic|ists?|ical|ics?|ings?|ed|s)?$"  # impressionist and impressionism are one word


@dataclass(frozen=True)
class Work:
    """A work of art and where it is from."""

    picture: Picture
    artist: str
    title: str
    year: str
    source: str
    licence: str
    medium: str = ""
    prompts: tuple[str, ...] = ()  # of the bundled style that was learnt from this work

    @property
    def label(self) -> str:
        """Artist, title and year."""
        return f"{self.artist}, {self.title} ({self.year})"

    def note(self) -> dict[str, str]:
        """What a style file says of it."""
        return {name: getattr(self, name) for name in REQUIRED}

    def attribution(self) -> str:
        """One line for a list of sources and licences."""
        return f"{self.label}. {self.source}; {self.licence}"


@dataclass(frozen=True)
class Near:
    """A work, and how near it is to a prompt."""

    work: Work
    words: float  # share of the prompt's words, in [0, 1]
    cosine: float  # of CLIP's embeddings of prompt and picture
    weight: float = 0.0  # in the style reward, in (0, 1]; 0: the work is not used

    @property
    def score(self) -> float:
        """What works are ordered by."""
        return self.words + COSINE * self.cosine


def read_library(path: str | Path) -> list[Work]:
    """The works of a library, in its order.

    Raises:
        ValueError: the file is missing or damaged, or nothing is said of a work's artist, title, year, source or licence.
    """
    works = []
    for entry, data, text in read(entries([path])):
        key, note = key_of(entry.name)[0], note_of(text)
        if missing := [name for name in REQUIRED if not note.get(name)]:
            raise ValueError(f"{key} in {path} has no {', '.join(missing)}: every work needs {', '.join(REQUIRED)}")
        picture = Picture(key, data, tuple(note["caption"]), note.get("style") or "", kind="art", source=note["source"])
        facts = {name: str(note[name]) for name in REQUIRED}
        works.append(Work(picture, **facts, medium=note.get("medium") or "", prompts=tuple(note.get("prompts") or ())))
    return works


def near_works(bundle: Bundle, text: str, count: int = 5) -> list[Near]:
    """The `count` works of the bundle's library that are nearest to a text, nearest first; those that `tune` uses have a weight.

    Raises:
        ValueError: an empty text, or as read_library.
    """
    works = read_library(bundle.exemplars_path) if bundle.exemplars_path else []
    return ranked(bundle, text, works, shares(text, works))[:count]


def answers(config: TuneConfig) -> bool:
    """Whether a run takes exemplars from the library by default: the method allows it, and the reward has a weight for them."""
    rewarded = (config.steps or config.epochs) and (config.style_weight or config.layout_weight)
    return METHODS[config.method].library and bool(rewarded)


def used_works(bundle: Bundle, text: str) -> list[Near]:
    """The works of the bundle's library that the style reward of a prompt compares with: one to MOST, or none. Logs them."""
    works = read_library(bundle.exemplars_path) if bundle.exemplars_path else []
    found = shares(text, works)
    able = [i for i, share in enumerate(found) if share >= LEAST]  # CLIP needs to look only at these
    used = [near for near in ranked(bundle, text, [works[i] for i in able], [found[i] for i in able]) if near.weight]
    if used:
        log.info("exemplars of the library for %r: %s", text, "; ".join(near.work.label for near in used))
    elif works:
        log.info("the library of exemplars has no work near to %r: the reward is CLIP's alone", text)
    return used


def ranked(bundle: Bundle, text: str, works: Sequence[Work], words: Sequence[float]) -> list[Near]:
    """Works with their weights, nearest first."""
    text = check_prompt(text, "text")
    if not works:
        return []
    embedded = embed_texts(bundle.clip, [without_unknown_words(bundle.clip_path, text, warn=False)])[0]
    cosines = (embed_works(bundle.clip, works) @ embedded).tolist()
    found = [Near(*parts) for parts in zip(works, words, cosines, strict=True)]
    found.sort(key=lambda near: (near.words >= LEAST, near.score), reverse=True)
    best = found[0].score
    for place, near in enumerate(found[:MOST]):
        if near.words >= LEAST and near.score >= NEXT * best:
            found[place] = replace(near, weight=round(near.score / best, 3))
    return found


@torch.inference_mode()
def embed_works(model: CLIPModel, works: Sequence[Work]) -> Tensor:
    """CLIP's unit vectors of the middle squares of works, (N, E)."""
    side, device = model.visual.input_resolution, model.token_embedding.weight.device
    parts = []
    for i in range(0, len(works), 16):
        squares = [np.asarray(centre_crop(work.picture.open(), side)) for work in works[i : i + 16]]
        parts.append(embed_images(model, to_tensor(squares).to(device)))
    return torch.cat(parts)


def shares(text: str, works: Sequence[Work]) -> list[float]:
    """For each work, the share of the prompt's words that it has, by their weights; 1 for a prompt that the work stands for."""
    named = [stems(" ".join((work.artist, work.picture.style, work.medium))) - SUBJECTS for work in works]
    told = [stems(" ".join((work.title, work.picture.style, *work.picture.captions))) for work in works]
    count = Counter(word for one, other in zip(named, told, strict=True) for word in one | other)
    wanted = {word: math.log(max(USUAL, len(works)) / count[word]) if count[word] else UNKNOWN for word in sorted(stems(text))}
    total = max(ENOUGH, sum(wanted.values()))
    return [
        1.0
        if stands_for(work, text)
        else sum(weight * (NAMED if word in one else TOLD if word in other else 0.0) for word, weight in wanted.items()) / total
        for work, one, other in zip(works, named, told, strict=True)
    ]


def stands_for(work: Work, text: str) -> bool:
    """Whether the text is a prompt of the bundled style that was learnt from the work."""
    return " ".join(text.split()).casefold() in (prompt.casefold() for prompt in work.prompts)


def stems(text: str) -> set[str]:
    """The words of a text that may name a style, without accents and endings."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode().replace("color", "colour")
    return {re.sub(ENDINGS, "", word).rstrip("e") for word in re.findall(r"[a-z0-9]{3,}", plain)} - PLAIN


def library_exemplars(network: FeatureNetwork, found: Sequence[Near], size: int) -> Exemplars | None:
    """The works as a reward (`Exemplars`), nearer ones with more weight; None without any."""
    if not found:
        return None
    pixels = [to_tensor([np.asarray(near.work.picture.open())]) for near in found]  # (1, 3, H, W) each
    return Exemplars(network, pixels, size, [near.weight for near in found])


def learn_others(
    exemplars: Exemplars,
    bundle: Bundle,
    photos: Sequence[Picture],
    config: TuneConfig,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Let the recogniser of exemplars learn from what is not of their style: works of the bundle's library, and the first photos.
    Nothing happens where the reward has no weight for it.

    Args:
        tick: called once a picture; may raise to cancel.
    """
    if not (config.recognised_weight and config.steps + config.epochs):
        return
    works = read_library(bundle.exemplars_path) if bundle.exemplars_path else []
    pictures = [*(work.picture for work in works), *photos[:PHOTOS]]

    def others() -> Iterator[Tensor]:
        for picture in pictures:
            tick()
            yield to_tensor([np.asarray(picture.open())])

    exemplars.learn_from(others(), config.size, config.seed)


def recipe_of(found: Sequence[Near]) -> dict[str, Any]:
    """For a style file's recipe: the works that its reward compared with; empty without any."""
    return {"works": [{**near.work.note(), "weight": near.weight} for near in found]} if found else {}
