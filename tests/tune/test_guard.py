"""When a run stops and what it keeps."""

import pytest
import tiny
import torch

from stylerdalle.translator.style import Style, new_adapter
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.guard import Guard, verdict
from stylerdalle.tune.objective import Objective

SMALL = TuneConfig(size=32, rank=2, kl_budget=1.0)


@pytest.fixture(scope="module")
def guard() -> Guard:
    tokenizer = tiny.tokenizer()
    objective = Objective(tokenizer, tiny.translator(tokenizer), tiny.clip_model(), "pixel art", SMALL)
    return Guard(objective, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def style(guard: Guard, bias: float = 0.0) -> Style:
    tensors = new_adapter(guard.objective.translator, 2, torch.Generator().manual_seed(0))
    tensors["outNet.bias.delta"][:100] = bias
    return Style(tensors)


def test_the_score_is_a_cosine_that_repeats_and_depends_on_the_style(guard):
    first, again, other = (guard.score(style(guard, bias)) for bias in (0, 0, 300))
    assert -1 <= first <= 1
    assert first == again != other


def test_an_adapter_beyond_the_kl_budget_is_not_kept(guard, monkeypatch):
    scores = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(guard, "score", lambda style, tick: next(scores))
    for step, kl in ((1, 0.5), (2, 1.5), (3, 0.9)):
        guard.check(style(guard, step), step, kl)
    assert (guard.first_score, guard.best_score, guard.best_step, guard.stale) == (0.1, 0.2, 3, 0)
    assert guard.best["outNet.bias.delta"][0] == 3


def curve(rewards: list[float], held_out: list[float]) -> list[dict[str, str]]:
    every = len(rewards) // len(held_out)
    return [
        {"reward": str(r), "held_out": str(held_out[i // every]) if i % every == every - 1 else ""} for i, r in enumerate(rewards)
    ]


def test_a_reward_that_rises_while_the_held_out_score_falls_is_warned_of():
    rising = [i / 10 for i in range(12)]
    assert "rose by 0.900 while the score on held-out photos fell by 0.200" in str(verdict(curve(rising, [0.5, 0.4, 0.3])))
    assert verdict(curve(rising, [0.3, 0.4, 0.5])) is None
    assert verdict(curve(rising[::-1], [0.5, 0.4, 0.3])) is None
    assert verdict(curve(rising[:3], [0.5])) is None
