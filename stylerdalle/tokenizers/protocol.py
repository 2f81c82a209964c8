"""The interface of an image tokenizer: pictures to discrete tokens and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ImageTokenizer(Protocol):
    """What the library asks of a frozen image tokenizer. It is an `nn.Module`; registry.py lists the ones there are.

    Letters: B pictures of H x W pixels; h x w tokens, h = H / downsample, w = W / downsample; V tokens in the vocabulary;
    D_tok numbers in a token's embedding.
    """

    sha256: str  # of the file that it was read from; empty: of none

    @property
    def downsample(self) -> int:
        """Pixels a side of one token."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def embed_dim(self) -> int:
        """D_tok."""

    @property
    def halo(self) -> int | None:
        """Tokens on each side of a place that its value depends on. Large pictures go through in tiles with this margin.

        None: a place depends on all others. Such a tokenizer must take pictures of any size itself.
        """

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions; `cast` sets it."""

    def arch(self) -> dict[str, Any]:
        """Its type (a key of registry.TOKENIZERS, under "type") and sizes, as JSON: a model file's metadata."""

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of downsample -> long (B, h, w)."""

    def decode(self, tokens: Tensor) -> Tensor:
        """long (B, h, w) -> float32 (B, 3, H, W) in [0, 1]."""

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """Token probabilities (B, V, h, w) -> (B, 3, H, W) in [0, 1], differentiable."""

    def decode_mixture(self, embeddings: Tensor, recompute: bool = False) -> Tensor:
        """Mean embeddings of the likely tokens (B, D_tok, h, w) -> (B, 3, H, W) in [0, 1], differentiable.

        Args:
            recompute: keep no activations for the gradient but those between blocks, and compute the others once more: less
                memory, the same gradient.
        """

    def embed(self, tokens: Tensor) -> Tensor:
        """long (B, h, w) -> (B, h, w, D_tok)."""

    def cast(self, dtype: torch.dtype) -> ImageTokenizer:
        """Run in `dtype`, in place, except for layers that need float32."""

    # methods of nn.Module that the library calls

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def eval(self) -> Any: ...

    def requires_grad_(self, requires_grad: bool = True) -> Any: ...

    def to(self, device: torch.device | str) -> Any: ...


def run_block(block: Callable[..., Tensor], *inputs: Any, recompute: bool = False) -> Tensor:
    """block(*inputs), whose activations are computed again for the gradient with `recompute` (arXiv 1604.06174)."""
    if not recompute or not torch.is_grad_enabled():
        return block(*inputs)
    out: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def check_pixels(images: Tensor, unit: int) -> None:
    """Raises ValueError unless the images are (B, 3, H, W) with H and W multiples of `unit`."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % unit or images.shape[3] % unit:
        raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W), H and W multiples of {unit}")


def all_embeddings(tokenizer: ImageTokenizer) -> Tensor:
    """(V, D_tok): the embedding of every token, in float32."""
    device = next(tokenizer.parameters()).device
    return tokenizer.embed(torch.arange(tokenizer.vocab_size, device=device)[None, None])[0, 0].float()
