"""From logits to tokens, greedily or by sampling, and to mixtures: the mean embedding of the likely tokens.

The paper samples one token at each place, independently of its neighbours. Neighbours then disagree, which shows as noise, and
there is nothing between two flat colours, which shows as blocks. A mixture shows neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import SEEDS, SOFTNESS, check_finite


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen from logits.

    Raises:
        ValueError: an option is out of range.
    """

    temperature: float = 0.0  # 0 takes the likeliest token, higher samples more freely
    top_k: int = 0  # sample among the k likeliest tokens only; 0: among all
    top_p: float = 1.0  # sample among the likeliest tokens whose probabilities sum to p only
    seed: int = 0  # of the sampling, and of the position of a style's texture; the same seed gives the same tokens
    softness: float = SOFTNESS  # of mixtures, higher blends more tokens; 0 gives one token at each place, as in the paper

    def __post_init__(self) -> None:
        check_finite(self)
        if not self.temperature >= 0 or not self.top_k >= 0 or not 0 < self.top_p <= 1 or not self.softness >= 0:
            raise ValueError(
                f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}, softness {self.softness} "
                "cannot be sampled with: temperature and softness >= 0, top_k >= 0 (0 is all), 0 < top_p <= 1"
            )
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed {self.seed} is out of range: 0 to {SEEDS - 1}")


DEFAULT = Sampling()


def choose_tokens(
    logits: Tensor, sampling: Sampling, generator: torch.Generator, embeddings: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Logits (N, V) -> tokens (N), and with softness > 0 mixtures (N, D_tok).

    z = logits + temperature * Gumbel noise, -inf outside the top k and the top p. The token is argmax z, a sample of
    softmax(logits / temperature); the mixture is softmax(z / softness) @ embeddings.

    Args:
        embeddings: (V, D_tok), of every token; needed with softness.
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
    assert embeddings is not None
    return tokens, (z / sampling.softness).softmax(-1).to(embeddings.dtype) @ embeddings


def gumbel(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise of the logits' shape, on their device.

    It is drawn on the generator's device: with a generator on the CPU, a seed gives the same noise on every device.
    """
    uniform = torch.rand(logits.shape, generator=generator, device=generator.device).clamp_(min=1e-20)
    return uniform.log_().neg_().log_().neg_().to(logits.device)
