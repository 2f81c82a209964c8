"""Image tokenizers: pictures to discrete tokens and back. `ImageTokenizer` is what the rest of the library asks of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class ImageTokenizer(Protocol):
    """A frozen picture tokenizer. B pictures of H x W pixels are h x w tokens, h = H / downsample.

    Large pictures are given in parts, with a margin of `halo` tokens that is cut off again.
    """

    downsample: int
    vocab_size: int  # V
    embed_dim: int  # D_tok
    halo: int | None  # tokens around a place that its value depends on; None where all matter: it then takes pictures of any size

    @property
    def dtype(self) -> torch.dtype: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...  # it is an nn.Module

    def arch(self) -> dict[str, Any]:
        """Its `type` and sizes, from which checkpoint.py builds it again."""

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], sides multiples of downsample -> long (B, h, w)."""

    def decode(self, tokens: Tensor) -> Tensor:
        """long (B, h, w) -> float32 (B, 3, H, W) in [0, 1]."""

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """(B, V, h, w) -> (B, 3, H, W) in [0, 1], differentiable."""

    def decode_mixture(self, embeddings: Tensor) -> Tensor:
        """Mean embeddings of several tokens a place, (B, D_tok, h, w) -> (B, 3, H, W) in [0, 1], differentiable."""

    def embed(self, tokens: Tensor) -> Tensor:
        """long (B, h, w) -> (B, h, w, D_tok)."""


def check_pixels(images: Tensor, unit: int) -> None:
    """Raises ValueError for images that are not (B, 3, H, W) with H and W multiples of `unit`."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % unit or images.shape[3] % unit:
        raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W), H and W multiples of {unit}")
