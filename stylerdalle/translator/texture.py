"""A style's texture: tokens of a picture of its marks (strokes, panes, hatching) that the translator is shown beside the content.

A non-autoregressive translator says all tokens at once, and where the content is plain they all come out alike: a sky gets no
strokes, for nothing tells where one begins. The paper's decoder has only attention to break the tie. A texture breaks it: it
lies under the picture like the weave of a canvas, repeats after 64 tokens without a seam, and the style has learnt to lay its
marks over the photo's colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Texture:
    """One texture or a weighted sum of several.

    Attributes:
        tokens: long (K, T, T), each repeating after T tokens in both directions.
        weights: (K).
    """

    tokens: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.tokens.shape)
        if self.tokens.ndim != 3 or shape[1] != shape[2] or not self.tokens.numel() or self.weights.shape != shape[:1]:
            raise ValueError(f"a texture of shape {shape} with {tuple(self.weights.shape)} weights: need (K, T, T) and (K)")

    def to(self, device: torch.device | str) -> Texture:
        return Texture(self.tokens.to(device), self.weights.to(device))


def field(textures: Sequence[tuple[Texture, float]], embeddings: Tensor) -> Tensor | None:
    """What the translator reads of a weighted sum of textures: (T, T, D_tok), or None where there are none.

    Embeddings count from the mean of their texture: a plain one is zero, the same as none.

    Args:
        embeddings: (V, D_tok), of every token.

    Raises:
        ValueError: textures of different sides, or of another vocabulary.
    """
    total: Tensor | None = None
    for texture, weight in textures:
        for tokens, share in zip(texture.tokens.to(embeddings.device), texture.weights.tolist(), strict=True):
            if int(tokens.max()) >= len(embeddings):
                raise ValueError(f"a texture speaks of token {int(tokens.max())}, this vocabulary has {len(embeddings)}")
            part = embeddings[tokens]  # (T, T, D_tok)
            part = weight * share * (part - part.mean((0, 1)))
            if total is not None and total.shape != part.shape:
                raise ValueError(f"textures of {total.shape[0]} and {part.shape[0]} tokens a side cannot be added")
            total = part if total is None else total + part
    return total


def under(texture: Tensor, places: Tensor, side: int) -> Tensor:
    """The texture (T, T, D) under windows of `side` tokens whose first tokens lie at places (B, 2), (y, x): (B, side*side, D)."""
    steps = torch.arange(side, device=texture.device)
    rows, columns = ((places[:, i, None].to(texture.device) + steps) % len(texture) for i in range(2))  # (B, side) each
    return texture[rows[:, :, None], columns[:, None]].flatten(1, 2)
