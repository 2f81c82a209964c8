"""Tokens of pictures, with what is needed to decode them at the pictures' own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PHOTO_MEANS = 4  # mean colours a side that are kept of a photo for each token


@dataclass(frozen=True)
class Tokens:
    """Tokens of B pictures: content tokens from `encode`, or stylised tokens from `translate`."""

    grid: Tensor  # long (B, h, w)
    height: int  # of the pictures in px; the grid may cover a little more, because it has whole tokens only
    width: int
    vocab_size: int  # of the tokenizer
    alpha: Tensor | None = None  # float32 (B, 1, height, width) in [0, 1]; None: opaque pictures
    scale: int = 1  # 2: the pictures were read at half size, for a translator with upscale 2
    mixture: Tensor | None = None  # (B, h, w, D_tok), mean embeddings of the likely tokens; decoded in place of the grid
    detail: float = 1.0  # the size that the pictures are read and decoded at, over their own
    photo: Tensor | None = None  # float16 (B, 3, 4h, 4w), mean colours of the photos, to compare frames; None for one picture
    tokenizer: str = ""  # SHA-256 of the tokenizer's file; empty: it was not read from a file
    steady: float = 0.0  # 0 to 1, how much the decoded frames are steadied (images.steady)
    frames: int = 0  # of each video, with steady; after so many pictures another one begins
    blocks: Tensor | None = None  # float32 (B, h, w) in [0, 1], how much each place is a flat square (images/blocks.py); None: 0
    seed: int = 0  # of the sampling and the places of marks


def check_tokenizer(tokens: Tokens, sha256: str, vocab_size: int) -> None:
    """Raises ValueError unless tokens are of the tokenizer with this hash and this vocabulary."""
    if tokens.vocab_size != vocab_size:
        raise ValueError(
            f"the tokens are of a vocabulary of {tokens.vocab_size}, this tokenizer has {vocab_size}: "
            "decode with the tokenizer that encoded"
        )
    if tokens.tokenizer and sha256 and tokens.tokenizer != sha256:
        raise ValueError(
            f"the tokens are of another tokenizer (sha256 {tokens.tokenizer[:12]}…) than this one (sha256 {sha256[:12]}…): "
            "use the same tokenizer, of one bundle, from Tokenize to Detokenize"
        )


def joined(several: Sequence[Tokens]) -> Tokens:
    """The pictures of several Tokens of the same size and kind as one, along B."""

    def all_of(parts: Sequence[Tensor | None]) -> Tensor | None:
        given = [part for part in parts if part is not None]
        return torch.cat(given) if given else None

    return replace(
        several[0],
        grid=torch.cat([tokens.grid for tokens in several]),
        alpha=all_of([tokens.alpha for tokens in several]),
        mixture=all_of([tokens.mixture for tokens in several]),
        photo=all_of([tokens.photo for tokens in several]),
        blocks=all_of([tokens.blocks for tokens in several]),
    )
