"""Pairs of a style as tokens, in windows of the translator: the translator and the hypernetwork learn marks from them.

They are made by a filter, under its texture, or painted by the teacher, under the noise it painted them with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..images.tiling import starts
from ..learn.pictures import Picture
from ..learn.run import save_tensors
from ..tokenizers.protocol import ImageTokenizer
from ..translator.model import TranslatorConfig
from ..translator.noise import noise_at, noise_grid
from ..translator.texture import Texture, field_under, laid_under
from .pairs import coded_texture, make_pairs
from .teacher_pairs import Pairs


@dataclass(frozen=True)
class Coded:
    """N windows of n x n tokens."""

    content: Tensor  # of the photos, long (N, n*n)
    target: Tensor  # of the made pictures, long (N, n*n)
    places: Tensor  # of the windows on the texture, (y, x) in tokens, long (N, 2)
    texture: Texture | None
    noise: Tensor | None = None  # that the pictures were painted with, (N, n*n, K); None: made without noise

    def __len__(self) -> int:
        return len(self.content)

    def rows(self, rows: Tensor, target: Tensor | None = None) -> Coded:
        """Some of the windows, with another target if one is given."""
        noise = None if self.noise is None else self.noise[rows]
        return Coded(self.content[rows], self.target[rows] if target is None else target, self.places[rows], self.texture, noise)

    def under(self, field: Tensor | None, config: TranslatorConfig, device: torch.device) -> Tensor | None:
        """What lies under the windows, as the translator reads it (`laid_under`): (N, n*n, D_tok + K), or None.

        A translator that reads noise gets unrelated noise where the pictures were made without any.

        Args:
            field: of the texture (`texture_field`).
        """
        noise = None
        if config.noise:
            noise = noise_at(self.places, config.grid).flatten(1, 2) if self.noise is None else self.noise
            noise = noise.to(device, non_blocking=True).float()
        texture = None if field is None else field_under(field, self.places, config.grid)
        return laid_under(texture, noise, config.embed_dim)


def painted_pairs(pairs: Pairs, name: str, side: int) -> Coded:
    """The pairs that the teacher painted in one style, cut into windows that overlap by a quarter, as in use.

    Args:
        side: n, of the windows.

    Raises:
        ValueError: there are none in this style, or they are smaller than a window.
    """
    if name not in pairs.styles:
        raise ValueError(f"there are no painted pairs of {name}: they are of {', '.join(pairs.styles)}")
    own = pairs.style == pairs.styles.index(name)
    height, width = pairs.content.shape[1:]
    if min(height, width) < side or not own.any():
        raise ValueError(f"{int(own.sum())} painted pairs of {name}, of {width} x {height} tokens: need one of {side} x {side}")
    noise = torch.stack([noise_grid(height, width, seed) for seed in pairs.seed[own].tolist()]).half()
    corners = [(y, x) for y in starts(height, side, side // 4) for x in starts(width, side, side // 4)]

    def cut(whole: Tensor) -> Tensor:
        """(N, h, w, ...) -> (N * corners, n*n, ...)."""
        windows = [whole[:, y : y + side, x : x + side].flatten(1, 2) for y, x in corners]
        return torch.stack(windows, 1).flatten(0, 1)

    content, target = cut(pairs.content[own]), cut(pairs.target[own])
    return Coded(content, target, torch.zeros(len(content), 2, dtype=torch.long), None, cut(noise))


@torch.no_grad()
def coded_pairs(
    tokenizer: ImageTokenizer, photos: Sequence[Picture], made_by: str, window: int, count: int, folder: Path
) -> Coded:
    """`count` made pairs of a style, read from `folder` if they were made before, and kept there.

    Args:
        made_by: the style whose filter makes them (registry.py).
        window: side of the crops, px.

    Raises:
        ValueError: they were not made before, and there are no photos.
    """
    path = folder / f"pairs-{made_by}-{count}.pt"
    if not path.is_file():
        if not photos:
            raise ValueError(f"the pairs of {made_by} are neither painted nor in {folder}: give photos to make them from")
        folder.mkdir(parents=True, exist_ok=True)
        *sides, places = make_pairs(photos, made_by, window, count, unit=tokenizer.downsample)
        device = next(tokenizer.parameters()).device
        coded = [torch.cat([tokenizer.encode(part.to(device).float() / 255).cpu() for part in side.split(32)]) for side in sides]
        save_tensors(path, [*(tokens.flatten(1).to(torch.int32) for tokens in coded), places])
    content, target, places = torch.load(path, weights_only=True)
    return Coded(content.long(), target.long(), places, coded_texture(tokenizer, made_by))
