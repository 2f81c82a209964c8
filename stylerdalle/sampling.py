"""From logits to tokens: greedy or drawn, and softly: a mean of the likely ones.

The paper draws one token a place, each by itself; neighbours then disagree, which shows as noise, and between two flat
colours there is nothing, which shows as blocks. The mean embedding of the likely tokens has neither.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose_tokens(
    logits: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    generator: torch.Generator,
    softness: float = 0.0,
    rows: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Logits (N, V) -> tokens (N), and with softness > 0 the mixtures (N, D_tok) of their embeddings.

    z = logits + temperature * Gumbel noise, of the top k and the top p of probability only; the token is argmax z (a draw
    from softmax(logits / temperature)), the mixture softmax(z / softness) @ rows.

    Args:
        rows: (V, D_tok), the embedding of every token; needed with softness.
    """
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1 or softness < 0:
        raise ValueError(
            f"temperature {temperature}, top_k {top_k}, top_p {top_p}, softness {softness} cannot be sampled with: "
            "temperature and softness >= 0, top_k >= 0 (0 is all), 0 < top_p <= 1"
        )
    z = logits
    if 0 < top_k < logits.shape[-1]:
        z = z.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if top_p < 1:
        p, order = (z / (temperature or 1)).softmax(-1).sort(descending=True)
        beyond = p.cumsum(-1) - p >= top_p
        z = z.masked_fill(beyond.gather(-1, order.argsort()), -torch.inf)
    if temperature:
        uniform = torch.rand(z.shape, generator=generator, device=z.device).clamp_(min=1e-20)
        z = z - temperature * uniform.log_().neg_().log_()
    tokens = z.argmax(-1)
    if softness == 0:
        return (tokens,)
    assert rows is not None
    return tokens, (z / softness).softmax(-1).to(rows.dtype) @ rows
