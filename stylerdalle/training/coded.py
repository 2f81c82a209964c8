"""Made pairs as tokens, kept on disk: what the translator and the network for any prompt learn marks from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..learn.pictures import Picture
from ..storage import replacing
from ..tokenizers.protocol import ImageTokenizer
from ..translator.texture import Texture
from .pairs import coded_texture, make_pairs


@dataclass(frozen=True)
class Coded:
    """N made pairs as tokens, in windows of n x n."""

    content: Tensor  # of the photos, long (N, n*n)
    target: Tensor  # of the made pictures, long (N, n*n)
    places: Tensor  # of the windows on the texture, (y, x) in tokens, long (N, 2)
    texture: Texture | None

    def __len__(self) -> int:
        return len(self.content)


@torch.no_grad()
def coded_pairs(
    tokenizer: ImageTokenizer, photos: Sequence[Picture], made_by: str, window: int, count: int, folder: Path
) -> Coded:
    """`count` made pairs of a style, read from `folder` if they were made before, and kept there.

    Args:
        made_by: the style whose filter makes them (registry.py).
        window: side of the crops, px.
    """
    path = folder / f"pairs-{made_by}-{count}.pt"
    if not path.is_file():
        *sides, places = make_pairs(photos, made_by, window, count, unit=tokenizer.downsample)
        coded = [torch.cat([tokenizer.encode(part.float() / 255) for part in side.split(32)]) for side in sides]
        write_tensors(path, [*(tokens.flatten(1).to(torch.int32) for tokens in coded), places])
    content, target, places = torch.load(path, weights_only=True)
    return Coded(content.long(), target.long(), places, coded_texture(tokenizer, made_by))


def write_tensors(path: Path, value: Any) -> None:
    """torch.save, by a temporary file: a kill leaves no half-written one."""
    with replacing(path) as stream:
        torch.save(value, stream)
