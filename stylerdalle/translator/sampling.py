"""From logits to tokens: greedy or drawn, and softly: a mean of the likely ones.

The paper draws one token a place, each by itself; neighbours then disagree, which shows as noise, and between two flat
colours there is nothing, which shows as blocks. The mean embedding of the likely tokens has neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SOFTNESS = 0.5  # logits are divided by it: a token half a unit behind the likeliest has e^-1 of its share


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen from logits.

    Attributes:
        temperature: 0 takes the likeliest token; higher samples more freely.
        top_k: sample among the k likeliest only; 0 is all.
        top_p: sample among the likeliest whose probabilities sum to p.
        seed: of the sampling, and of where a style's texture lies; the same seed gives the same tokens.
        softness: how far a place may lie between its likely tokens; 0 is one token a place, as in the paper.

    Raises:
        ValueError: one of them is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    softness: float = SOFTNESS

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1 or self.softness < 0:
            raise ValueError(
                f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}, softness {self.softness} "
                "cannot be sampled with: temperature and softness >= 0, top_k >= 0 (0 is all), 0 < top_p <= 1"
            )


DEFAULT = Sampling()


def choose_tokens(
    logits: Tensor, sampling: Sampling, generator: torch.Generator, rows: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Logits (N, V) -> tokens (N), and with softness > 0 the mixtures (N, D_tok) of their embeddings.

    z = logits + temperature * Gumbel noise, of the top k and the top p of probability only; the token is argmax z (a draw
    from softmax(logits / temperature)), the mixture softmax(z / softness) @ rows.

    Args:
        rows: (V, D_tok), the embedding of every token; needed with softness.
    """
    z, temperature = logits, sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        z = z.masked_fill(logits < logits.topk(sampling.top_k).values[..., -1:], -torch.inf)
    if sampling.top_p < 1:
        p, order = (z / (temperature or 1)).softmax(-1).sort(descending=True)
        beyond = p.cumsum(-1) - p >= sampling.top_p
        z = z.masked_fill(beyond.gather(-1, order.argsort()), -torch.inf)
    if temperature:
        z = z + temperature * gumbel(z, generator)
    tokens = z.argmax(-1)
    if sampling.softness == 0:
        return (tokens,)
    assert rows is not None
    return tokens, (z / sampling.softness).softmax(-1).to(rows.dtype) @ rows


def gumbel(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise of the logits' shape, drawn where the generator is: from one on the CPU a seed means the same everywhere."""
    uniform = torch.rand(logits.shape, generator=generator, device=generator.device).clamp_(min=1e-20)
    return uniform.log_().neg_().log_().neg_().to(logits.device)
