"""What the teacher learns from: crops of photos after the tokenizer, and the statistics of its exemplars."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.pictures import Picture, key_of, split_validation
from ..learn.sources import entries, note_of, read, read_pictures
from .perceptual import Features, Statistics, mean_of, statistics
from .teacher_styles import Manner

LARGE = 300  # px of the short side from which a photo counts as large
ENCODED = 8  # crops that are encoded together
log = logging.getLogger(__name__)


def read_photos(paths: Sequence[str | Path]) -> list[Picture]:
    """The photos of shards or folders that training may use.

    Raises:
        ValueError: there are none.
    """
    photos = [picture for picture in split_validation(read_pictures(paths))[0] if picture.kind in ("photo", "wallpaper")]
    if not photos:
        raise ValueError(f"{', '.join(map(str, paths))} hold no photos: give shards or folders that do")
    return photos


def photo_crops(
    photos: Sequence[Picture], size: int, large: float, zoom: tuple[float, float]
) -> Callable[[np.random.Generator], Tensor]:
    """A draw of random crops, float32 (1, 3, size, size) in [0, 1].

    Args:
        large: share of crops from photos of LARGE px and more, if there are any.
        zoom: px of the crop per px of the photo.
    """
    big = [photo for photo in photos if min(photo.size) >= LARGE] or list(photos)

    def draw(rng: np.random.Generator) -> Tensor:
        pool = big if rng.random() < large else photos
        image = at_least(pool[int(rng.integers(len(pool)))].open(), size)
        return to_tensor([random_crop(image, size, rng, zoom)])

    return draw


@torch.inference_mode()
def photo_tokens(
    tokenizer: Any, draw: Callable[[np.random.Generator], Tensor], count: int, seed: int, device: torch.device
) -> Tensor:
    """Tokens of `count` drawn crops, int32 (count, size/8, size/8)."""
    started, found = time.monotonic(), []
    for first in range(0, count, ENCODED):
        crops = [draw(np.random.default_rng([seed, i])) for i in range(first, min(first + ENCODED, count))]
        found.append(tokenizer.encode(torch.cat(crops).to(device)).int().cpu())
        if first // ENCODED % 25 == 24 or first + ENCODED >= count:
            log.info("%d of %d crops as tokens in %.0f s", first + len(crops), count, time.monotonic() - started)
    return torch.cat(found)


def decoded_crops(tokenizer: Any, tokens: Tensor, size: int, device: torch.device) -> Callable[[np.random.Generator], Tensor]:
    """A draw of crops of decoded pictures at whole tokens, float32 (1, 3, size, size) in [0, 1].

    Args:
        tokens: (N, h, w); each picture is decoded once and kept in 8 bits.
    """
    kept: dict[int, Tensor] = {}
    unit = tokenizer.downsample
    spare = [side - size // unit for side in tokens.shape[1:]]

    def draw(rng: np.random.Generator) -> Tensor:
        i = int(rng.integers(len(tokens)))
        if i not in kept:
            with torch.inference_mode():
                kept[i] = (255 * tokenizer.decode(tokens[i : i + 1].long().to(device))).round().byte().cpu()
        y, x = (unit * int(rng.integers(places + 1)) for places in spare)
        return kept[i][..., y : y + size, x : x + size].to(device).float().div_(255)

    return draw


def exemplar_picture(picture: Picture, side: int) -> Tensor:
    """An exemplar with its short side resized to `side` px, float32 (1, 3, H, W) in [0, 1]."""
    image = picture.open()
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return to_tensor([np.asarray(image.resize(size, Image.Resampling.LANCZOS))])


@torch.no_grad()
def exemplar_statistics(
    features: Features, exemplars: Mapping[str, Picture], manners: Mapping[str, Manner], device: torch.device
) -> dict[str, list[Statistics]]:
    """The style of every manner: statistics of its exemplars at every depth.

    Raises:
        ValueError: a work of the table is not among the exemplars.
    """
    wanted = [key for manner in manners.values() for key in manner.exemplars]
    if missing := [key for key in wanted if key not in exemplars]:
        raise ValueError(f"{', '.join(missing[:5])} not found among {len(exemplars)} exemplars: give the shards that hold them")
    found = {}
    for name, manner in manners.items():
        pictures = [exemplar_picture(exemplars[key], manner.side).to(device) for key in manner.exemplars]
        found[name] = mean_of([[statistics(depth) for depth in features(picture)] for picture in pictures])
    return found


def attributions(paths: Sequence[str | Path]) -> dict[str, str]:
    """Key of an exemplar -> "artist: title, year", as far as its shard says so."""
    found = {}
    for entry, _, text in read(entries(paths)):
        note = {"artist": "anonymous", "title": "untitled", "year": "undated"} | note_of(text)
        found[key_of(entry.name)[0]] = f"{note['artist']}: {note['title']}, {note['year']}"
    return found
