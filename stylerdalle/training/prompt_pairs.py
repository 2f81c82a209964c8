"""Pairs of every prompt in a list (prompts.py): painted in its style by the teacher or made by its filter, under its tone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.pictures import Picture
from ..learn.run import save_tensors
from ..tokenizers.protocol import ImageTokenizer
from .coded import Coded, coded_pairs, painted_pairs
from .filters.tones import tone
from .prompts import Prompt
from .teacher_pairs import Pairs

log = logging.getLogger(__name__)


@torch.no_grad()
def pairs_of_prompts(
    tokenizer: ImageTokenizer,
    photos: Sequence[Picture],
    prompts: Sequence[Prompt],
    window: int,
    per_filter: int,
    per_tone: int,
    seed: int,
    folder: Path,
    painted: Pairs | None = None,
) -> dict[str, Coded]:
    """Pairs by the prompts' texts, read from `folder` if they were made before, and kept there.

    A tone is applied to the made picture as the tokenizer shows it; without a filter, to the photo.

    Args:
        window: side of the crops, px.
        per_filter: pairs of a filter.
        per_tone: how many of them are used under a tone.
        painted: by the teacher; a filter makes what they lack.

    Raises:
        ValueError: a prompt's style is neither painted nor has it a filter.
    """
    filters = sorted({p.filter for p in prompts if p.filter})
    plain: dict[str, Coded] = {}
    for i, name in enumerate(filters):
        first = i * len(photos) // len(filters)  # other photos for every filter
        if painted and name in painted.styles:
            plain[name] = painted_pairs(painted, name, window // tokenizer.downsample)
        else:
            plain[name] = coded_pairs(tokenizer, [*photos[first:], *photos[:first]], name, window, per_filter, folder)
        log.info("pairs of %s", name)
    if plain:
        contents = torch.cat([coded.content for coded in plain.values()])
    else:
        contents = coded_photos(tokenizer, photos, window, per_tone, seed)
    photo = Coded(contents, contents, torch.zeros(len(contents), 2, dtype=torch.long), None)
    path = folder / f"toned-{per_filter}-{per_tone}.pt"
    toned: dict[str, Tensor] = torch.load(path, weights_only=True) if path.is_file() else {}
    made: dict[str, Coded] = {}
    for i, p in enumerate(prompts):
        coded = plain[p.filter] if p.filter else photo
        if not p.tone:
            made[p.text] = coded
            continue
        rows = torch.from_numpy(np.random.default_rng([seed, i]).permutation(len(coded))[:per_tone])
        target = coded.target[rows]
        key = f"{p.tone} {hashlib.sha256(target.to(torch.int32).numpy().tobytes()).hexdigest()}"  # other pairs get others
        if key not in toned:
            toned[key] = with_tone(tokenizer, target, p.tone, window // tokenizer.downsample).to(torch.int32)
            save_tensors(path, toned)
        made[p.text] = coded.rows(rows, toned[key].long())
    return made


def with_tone(tokenizer: ImageTokenizer, tokens: Tensor, name: str, side: int) -> Tensor:
    """Tokens (N, side * side) of pictures -> tokens of the same pictures under a tone."""
    parts, device = tokens.unflatten(1, (side, side)).split(30), next(tokenizer.parameters()).device
    return torch.cat([tokenizer.encode(tone(name, tokenizer.decode(part.to(device)).float())).cpu() for part in parts]).flatten(1)


def coded_photos(tokenizer: ImageTokenizer, photos: Sequence[Picture], window: int, count: int, seed: int) -> Tensor:
    """Tokens of random crops of photos, (count, n*n)."""
    rng = np.random.default_rng(seed)
    chosen = [photos[i] for i in rng.integers(len(photos), size=count).tolist()]
    crops = to_tensor([random_crop(at_least(p.open(), window), window, rng, (0.4, 1.3)) for p in chosen])
    device = next(tokenizer.parameters()).device
    return torch.cat([tokenizer.encode(part.to(device)).cpu() for part in crops.split(30)]).flatten(1)
