"""Views of pictures as the statistics that CLIP's frozen image layers read: computed once, kept in a file.

A view is a random square of a picture, mirrored or not. Pictures of rare styles and exemplars have more views than those of
common ones. Some views are recoloured (filters/tones.py), so that CLIP learns the words for colours and light.

Letters: N views, D statistics, S side of a view in px.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..learn.crops import random_crop, to_tensor
from ..learn.pictures import Picture
from ..learn.run import save_tensors
from .filters.tones import TONES, tone

log = logging.getLogger(__name__)
Instrument = Callable[[Tensor], Tensor]  # (B, 3, S, S) in [0, 1] -> statistics (B, D)
EXEMPLARS = "exemplars"  # `source` of a picture that has more views, at all scales
FEWER = ((300, 1), (2, 2), (0, 1))  # pictures of a style, views of each
FIRST = 600  # pictures of a style that are looked at before the recoloured views
MOST = 2500  # pictures of a style that are looked at
VIEWS_OF_EXEMPLAR = 12
LEAST_SHARE = 0.6  # of a picture's shortest side that a view has
LEAST_SHARE_OF_EXEMPLAR = 0.3  # these are larger
BATCH = 64
SAVE_EVERY = 25  # batches


@dataclass(frozen=True)
class Views:
    """What was read of all pictures.

    Attributes:
        statistics: (N, D), fp16.
        picture: number of each view's picture, long (N).
        tone: number of each view's tone among TONES, or -1, long (N).
    """

    statistics: Tensor
    picture: Tensor
    tone: Tensor


def plan(styles: Sequence[str], exemplar: Sequence[bool], toned: int, seed: int) -> list[tuple[int, int]]:
    """(number of a picture, its tone or -1) for each view, in random order: of exemplars, of others in equal numbers for common
    styles, recoloured ones, and of the others that are left.

    Args:
        styles: of the pictures.
        exemplar: which of them are exemplars.
        toned: how many recoloured views; their pictures are drawn with 1/sqrt(pictures of the style).
    """
    count, taken = Counter(styles), Counter[str]()
    rng = np.random.default_rng([seed, 1])
    first: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    for i in sorted(rng.permutation(len(styles)).tolist(), key=lambda i: not exemplar[i]):
        style = styles[i]
        each = VIEWS_OF_EXEMPLAR if exemplar[i] else next(n for least, n in FEWER if count[style] >= least)
        if taken[style] < FIRST or exemplar[i]:
            first += [(i, -1)] * each
        elif taken[style] < MOST:
            rest += [(i, -1)] * each
        taken[style] += 1
    weight = np.array([count[style] ** -0.5 for style in styles])
    drawn = rng.choice(len(styles), toned, p=weight / weight.sum())
    return [*first, *((int(i), k % len(TONES)) for k, i in enumerate(drawn)), *rest]


def see(picture: Picture, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random view, uint8 (side, side, 3)."""
    image = picture.open()
    share = rng.uniform(LEAST_SHARE_OF_EXEMPLAR if picture.source == EXEMPLARS else LEAST_SHARE, 1.0)
    zoom = side / (share * min(image.size))
    return random_crop(image, side, rng, (zoom, zoom))


def batches(pictures: Sequence[Picture], views: Sequence[tuple[int, int]], first: int, side: int, seed: int) -> Iterator[Tensor]:
    """The views from number `first` on, as tensors (B, 3, S, S) in [0, 1]. A view depends on its number and the seed only."""
    for start in range(first, len(views), BATCH):
        some = list(enumerate(views[start : start + BATCH], start))
        images = to_tensor([see(pictures[i], side, np.random.default_rng([seed, 2, n])) for n, (i, _) in some])
        for k, (_, (_, shade)) in enumerate(some):
            if shade >= 0:
                images[k : k + 1] = tone(list(TONES)[shade], images[k : k + 1])
        yield images


def read_views(
    path: Path, pictures: Sequence[Picture], styles: Sequence[str], side: int, toned: int, seed: int, look: Instrument
) -> Views:
    """The views of pictures. What the file has of the same pictures and options is taken from it, the rest is computed and saved.

    Args:
        styles: of the pictures: the rarer, the more views.
        side: of a view, px.
        toned: how many recoloured views.
    """
    views = plan(styles, [p.source == EXEMPLARS for p in pictures], toned, seed)
    known = hashlib.sha256(json.dumps([[p.key for p in pictures], views, side, seed]).encode()).hexdigest()
    kept = torch.load(path, weights_only=True) if path.is_file() else {}
    found: list[Tensor] = [kept["statistics"]] if kept.get("of") == known else []
    done = sum(map(len, found))
    for number, images in enumerate(batches(pictures, views, done, side, seed), 1):
        found.append(look(images).half())
        if number % SAVE_EVERY == 0:
            log.info("looked at %d of %d views", done + number * BATCH, len(views))
            save(path, known, found)
    if sum(map(len, found)) > done:
        save(path, known, found)
    numbers = torch.tensor(views)
    return Views(torch.cat(found), numbers[:, 0], numbers[:, 1])


def save(path: Path, of: str, found: Sequence[Tensor]) -> None:
    """Write what was read so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"of": of, "statistics": torch.cat(list(found))})
