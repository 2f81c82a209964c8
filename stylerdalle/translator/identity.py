"""A translator that is the identity, made from a tokenizer's codebook in seconds: without a style, tokens out = tokens in.

With y_k the centred embedding of token k, rotated and scaled, the logit of token k at a place that reads token i is

    g_i (|y_i|^2 - |y_i - y_k|^2) / 2.

So the likeliest token is the one read, and its neighbours in the codebook follow by their distance, as in the soft targets of
pretraining (learn/targets.py). No new layer is needed:
- the projection is [A, c, -A, -c] of the embedding, so that the ReLU loses nothing: the state of a token is
  [relu(y), c, relu(-y), 0];
- every sub-layer of the decoder adds zero, for its last weights are zero; all others are random, so that an adapter learns there;
- the last layer norm divides by the deviation of the state, which is in g_i. What it subtracts cancels, for all rows of the
  output layer are differences of pairs: [y_k, -q_k, -y_k, q_k] with q_k = |y_k|^2 / 2c. The constant c carries the length of y,
  which a layer norm would lose: tokens of one direction and other lengths stay apart.

Letters: V tokens in the vocabulary; D_tok numbers in an embedding; D the translator's width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import Translator

ROWS = 1024  # tokens compared with all others at once


@torch.no_grad()
def start_as_identity(translator: Translator, embeddings: Tensor, softness: float = 0.25) -> None:
    """Initialise a translator as the identity: the likeliest token is the input token (for upscale 2, repeated 2 x 2).

    Args:
        embeddings: (V, D_tok), of every token. Of more than D/2 - 1 numbers only the principal directions are kept.
        softness: spread of the probabilities: a token as far away as the nearest one is on average has e^(-1 / softness) of the
            share of the token itself.

    Raises:
        ValueError: all embeddings are equal, or the decoder's input is tiled.
    """
    config = translator.config
    if config.upscale > 1 and config.decoder_input == "tiled":
        raise ValueError("a translator whose decoder's input is tiled cannot be the identity: use repeated")
    room = config.width // 2 - 1  # pairs of units for y; one more pair is for c
    e = embeddings.float()
    mean, spread = e.mean(0), (e - e.mean(0)).std()
    if not spread > 0:
        raise ValueError("all tokens have the same embedding: no translator can tell them apart")
    directions = principal_directions(e - mean, room)  # (D_tok, kept)
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(room, directions.shape[1], generator=generator))[
        0
    ]  # orthonormal columns: spread over all units
    a = (turn.to(e) @ directions.T) / spread  # (room, D_tok)
    y = (e - mean) @ a.T  # (V, room)
    squares = y.square().sum(1)  # (V)
    c = squares.mean().sqrt()
    half = torch.cat([a, a.new_zeros(1, a.shape[1])])  # (D/2, D_tok)
    shift = torch.cat([-(a @ mean), c[None]])
    translator.linear_proj.weight.copy_(torch.cat([half, -half]))
    translator.linear_proj.bias.copy_(torch.cat([shift, -shift]))
    for layer in translator.nat_dec.layers():
        for last in (layer.attn.project, layer.mlp.fc2):
            last.weight.zero_()
            last.bias.zero_()
    deviation = states(translator, embeddings).std(1, unbiased=False).mean()  # 1 / g, up to the gain
    gain = 2 * deviation / (softness * nearest_squares(y).mean().clamp(min=1e-12 * float(squares.mean())))
    rows = gain * torch.cat([y, (squares.mean() - squares)[:, None] / (2 * c)], 1)  # (V, D/2); the mean changes no probability
    translator.outNet.weight.copy_(torch.cat([rows, -rows], 1))
    translator.outNet.bias.zero_()


def principal_directions(centred: Tensor, most: int) -> Tensor:
    """(D_tok, kept) orthonormal directions of centred vectors (V, D_tok): all, or the `most` with the largest variance."""
    if centred.shape[1] <= most:
        return torch.eye(centred.shape[1]).to(centred)
    _, vectors = torch.linalg.eigh((centred.T @ centred).cpu().double())  # ascending
    return vectors[:, -most:].to(centred)


def nearest_squares(y: Tensor) -> Tensor:
    """The squared distance of each of (V, N) vectors to the nearest other one: (V)."""
    found = []
    for first, part in zip(range(0, len(y), ROWS), y.split(ROWS), strict=True):
        squares = torch.cdist(part, y).square()
        squares[torch.arange(len(part)), first + torch.arange(len(part))] = torch.inf
        found.append(squares.amin(1))
    return torch.cat(found)


def states(translator: Translator, embeddings: Tensor) -> Tensor:
    """The states with which tokens enter the decoder, (V, D), of their embeddings (V, D_tok)."""
    return F.relu(translator.linear_proj(embeddings.to(translator.dtype)))


@torch.no_grad()
def returned(translator: Translator, embeddings: Tensor) -> int:
    """How many of all tokens, embeddings (V, D_tok), a translator that started as the identity returns as they are."""
    same = 0
    for first, part in zip(range(0, len(embeddings), ROWS), embeddings.split(ROWS), strict=True):
        logits = translator.outNet(translator.nat_dec.ln_final(states(translator, part)))
        same += int((logits.argmax(1) == first + torch.arange(len(part), device=logits.device)).sum())
    return same
