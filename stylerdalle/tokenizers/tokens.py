"""Tokens of pictures and what is needed to give the pictures back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PHOTO_MEANS = 2  # mean colours of a photo that are kept for each token, a side


@dataclass(frozen=True)
class Tokens:
    """Tokens of B pictures and what is needed to give the pictures back as they came.

    Attributes:
        grid: long (B, h, w).
        height, width: of the pictures in px; the grid may cover a little more (padding to whole tokens).
        alpha: float32 (B, 1, height, width) in [0, 1], or None for opaque pictures.
        scale: picture px a token of the grid stands for, over downsample: 1, or 2 where the source was read at half size.
        vocab_size: of the tokenizer that made them.
        mixture: (B, h, w, D_tok), the mean embedding of the tokens that a place may be, or None. Where there is one it is
            what is shown: between two likely tokens it is smooth, where `grid` has to jump.
        detail: px the pictures were worked on at, for each of their own.
        photo: (B, 3, 2h, 2w), mean colours of the pictures that the content tokens were read from, to tell what changes
            from one to the next; None where there is one picture.
    """

    grid: Tensor
    height: int
    width: int
    vocab_size: int
    alpha: Tensor | None = None
    scale: int = 1
    mixture: Tensor | None = None
    detail: float = 1.0
    photo: Tensor | None = None

    def with_grid(self, grid: Tensor, scale: int, mixture: Tensor | None = None) -> Tokens:
        """The same pictures with other tokens."""
        return replace(self, grid=grid, scale=scale, mixture=mixture)


def joined(several: Sequence[Tokens]) -> Tokens:
    """The pictures of several Tokens of one kind and size, one after another."""

    def all_of(parts: Sequence[Tensor | None]) -> Tensor | None:
        given = [part for part in parts if part is not None]
        return torch.cat(given) if given else None

    return replace(
        several[0],
        grid=torch.cat([tokens.grid for tokens in several]),
        alpha=all_of([tokens.alpha for tokens in several]),
        mixture=all_of([tokens.mixture for tokens in several]),
        photo=all_of([tokens.photo for tokens in several]),
    )
