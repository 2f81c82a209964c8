"""A style's texture: tokens of a picture of its marks (strokes, panes, hatching), an input of the translator beside the content.

A non-autoregressive translator predicts all tokens at once. Where the content is plain, such as in a sky, all places see the same
and get the same token: no strokes, because nothing tells where one begins. In the paper's decoder only attention can break this
symmetry. A texture breaks it: it lies under the picture like the weave of a canvas and repeats without a seam, and a style learns
to lay its marks along it in the photo's colours.

A `Texture` is tokens; a texture field is their embeddings (T, T, D_tok), what the translator reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Texture:
    """One texture or a weighted sum of several.

    Raises:
        ValueError: shapes that do not fit.
    """

    tokens: Tensor  # long (K, T, T), each repeats after T tokens in both directions
    weights: Tensor  # (K)

    def __post_init__(self) -> None:
        shape = tuple(self.tokens.shape)
        if self.tokens.ndim != 3 or shape[1] != shape[2] or not self.tokens.numel() or self.weights.shape != shape[:1]:
            raise ValueError(f"a texture of shape {shape} with {tuple(self.weights.shape)} weights: need (K, T, T) and (K)")
        if self.tokens.min() < 0:
            raise ValueError(f"a texture has the token {int(self.tokens.min())}: need 0 or more")

    def to(self, device: torch.device | str) -> Texture:
        """The same on another device."""
        return Texture(self.tokens.to(device), self.weights.to(device))


def texture_field(textures: Sequence[tuple[Texture | None, float]], embeddings: Tensor) -> Tensor | None:
    """The field of a weighted sum of textures: (T, T, D_tok), or None for no textures.

    The mean embedding of each texture is subtracted: a texture of one token is the same as none.

    Args:
        embeddings: (V, D_tok), of every token.

    Raises:
        ValueError: textures of different sides, or of another vocabulary.
    """
    total: Tensor | None = None
    for texture, weight in textures:
        if texture is None:
            continue
        for tokens, share in zip(texture.tokens.to(embeddings.device), texture.weights.tolist(), strict=True):
            if int(tokens.max()) >= len(embeddings):
                raise ValueError(f"a texture has token {int(tokens.max())}, this vocabulary has {len(embeddings)}")
            part = embeddings[tokens]  # (T, T, D_tok)
            part = weight * share * (part - part.mean((0, 1)))
            if total is not None and total.shape != part.shape:
                raise ValueError(f"textures of {total.shape[0]} and {part.shape[0]} tokens a side cannot be added")
            total = part if total is None else total + part
    return total


def laid_under(texture: Tensor | None, noise: Tensor | None, embed_dim: int) -> Tensor | None:
    """What the decoder reads beside the content: a texture's field and noise under the same windows, side by side.

    Args:
        texture: (B, N, D_tok), of `field_under`; None: no texture.
        noise: (B, N, K); None: a translator that reads none.
        embed_dim: D_tok.

    Returns:
        (B, N, D_tok + K); None where there is neither.
    """
    if noise is None:
        return texture
    if texture is None:
        texture = noise.new_zeros(*noise.shape[:2], embed_dim)
    return torch.cat([texture, noise.to(texture)], -1)


def field_under(field: Tensor, places: Tensor, side: int) -> Tensor:
    """The part of a texture field (T, T, D_tok) under each window of `side` x `side` tokens.

    Args:
        places: long (B, 2), where the windows begin on the texture, (y, x).

    Returns:
        (B, side*side, D_tok).
    """
    steps = torch.arange(side, device=field.device)
    corners = places.to(field.device, non_blocking=True)
    rows, columns = ((corners[:, i, None] + steps) % len(field) for i in range(2))  # (B, side) each
    return field[rows[:, :, None], columns[:, None]].flatten(1, 2)
