"""The loop of every training."""

import math

import numpy as np
import pytest
import torch

from stylerdalle.learn.loop import Descent, Loop, Numbers, Tensors
from stylerdalle.learn.means import RunningMeans
from stylerdalle.learn.run import Run


class Stop(Exception):
    pass


class Line:
    """Learns w so that w x = 2 x."""

    def __init__(self, run: Run, steps: int = 6, max_norm: float = math.inf, **options):
        self.w = torch.zeros(3, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.w], lr=1.0)
        state = {"w": Tensors({"w": self.w}), "optimizer": self.optimizer}
        descent = Descent(self.optimizer, lambda step: 0.1 / (1 + step), [self.w], max_norm)
        self.loop = Loop(run, steps, 0, state, [descent], **options)

    def batch(self, step: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.random(3)).float()

    def learn(self, step: int, x: torch.Tensor) -> Numbers:
        loss = (self.w * x - 2 * x).square().sum()
        loss.backward()
        return {"loss": loss.item()}

    def train(self, **hooks) -> torch.Tensor:
        self.loop.resume({"steps": self.loop.steps})
        self.loop.train(self.batch, self.learn, **hooks)
        return self.w.detach()


def test_a_run_stopped_after_any_step_ends_as_an_unbroken_one(tmp_path):
    whole = Line(Run(tmp_path / "whole")).train()
    for at in range(1, 6):

        def stop(done: int, numbers: Numbers, at: int = at) -> None:
            if done == at:
                raise Stop

        broken = Line(Run(tmp_path / str(at)), minutes_between_saves=0)
        with pytest.raises(Stop):
            broken.train(callback=stop)
        resumed = Line(Run(tmp_path / str(at)))
        assert torch.equal(resumed.train(), whole)
        assert resumed.loop.done == 6


def test_the_rate_is_that_of_the_step_and_the_gradients_norm_is_limited(tmp_path):
    line = Line(Run(tmp_path), steps=3, max_norm=1e-3)
    norms = []
    line.optimizer.register_step_pre_hook(lambda *_: norms.append(line.w.grad.norm().item()))
    line.train()
    assert line.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 3)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)
    assert line.w.grad is None


def test_an_optimiser_without_gradients_changes_nothing(tmp_path):
    idle = torch.ones(2, requires_grad=True)
    line = Line(Run(tmp_path))
    line.loop.descents = [*line.loop.descents, Descent(torch.optim.Adam([idle]), lambda step: 1.0, [idle])]
    line.train()
    assert torch.equal(idle.detach(), torch.ones(2))


def test_the_curve_has_running_means_at_each_report_or_every_step(tmp_path):
    line = Line(Run(tmp_path / "means"), report_every=2)
    line.train(measure=lambda: {"norm": line.w.norm().item()})
    rows = Run(tmp_path / "means").rows()
    assert [row["step"] for row in rows] == ["2", "4", "6"] and set(rows[0]) == {"step", "norm", "loss"}
    Line(Run(tmp_path / "steps"), curve_of_steps=True).train(after=lambda step, numbers: {"check": None if step % 3 else 1.0})
    rows = Run(tmp_path / "steps").rows()
    assert [row["check"] for row in rows] == ["1", "", "", "1", "", ""]


def test_running_means_begin_unbiased_and_follow():
    means = RunningMeans()
    means.update({"a": 4.0, "b": None})
    assert means.values == {"a": 4.0}
    means.update({"b": 3.0})
    assert means.values == {"a": 4.0, "b": 3.0}, "b begins here"
    for _ in range(500):
        means.update({"a": 1.0, "b": 2.0})
    assert means.values["a"] == pytest.approx(1, abs=1e-2) and means.values["b"] == pytest.approx(2, abs=1e-2)


def test_a_loss_that_is_not_finite_ends_the_run_before_the_optimiser_steps(tmp_path):
    line = Line(Run(tmp_path), interruptible=True)
    learn = line.learn
    line.learn = lambda step, x: learn(step, x) if step < 2 else {"loss": math.nan}
    with pytest.raises(ValueError, match=r"the loss became nan at step 3: lower the learning rate \(here 0\.0333"):
        line.train()
    assert line.loop.done == 2 and not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("interruptible", [True, False])
def test_an_interrupted_run_is_saved_only_where_a_step_changes_nothing_but_gradients(tmp_path, interruptible):
    line = Line(Run(tmp_path), interruptible=interruptible)
    learn = line.learn

    def interrupted(step: int, x: torch.Tensor) -> Numbers:
        if step == 3:
            raise KeyboardInterrupt
        return learn(step, x)

    line.learn = interrupted
    with pytest.raises(KeyboardInterrupt):
        line.train()
    assert (tmp_path / "state.pt").exists() == interruptible
    if interruptible:
        assert torch.load(tmp_path / "state.pt")["step"] == 3


def test_a_reason_to_stop_ends_the_run_after_a_save_and_a_resumed_one_at_once(tmp_path, caplog):
    with caplog.at_level("INFO"):
        line = Line(Run(tmp_path))
        line.train(stop=lambda: "enough" if line.loop.done == 2 else "")
    assert "stopped at step 2: enough" in caplog.text
    assert torch.load(tmp_path / "state.pt")["step"] == line.loop.done == 2
    again = Line(Run(tmp_path))
    again.train(stop=lambda: "enough")
    assert again.loop.done == 2


def test_the_time_limit_counts_what_was_spent_before(tmp_path):
    line = Line(Run(tmp_path), minutes=1)
    line.train(stop=lambda: "enough" if line.loop.done == 1 else "")
    state = torch.load(tmp_path / "state.pt")
    torch.save({**state, "seconds": 61.0}, tmp_path / "state.pt")
    again = Line(Run(tmp_path), minutes=1)
    again.train()
    assert again.loop.done == 1


def test_a_state_of_another_training_is_refused(tmp_path):
    Run(tmp_path).save({"step": 1, "optimizer": {}})
    with pytest.raises(ValueError, match=r"has no w: .*--no-resume"):
        Line(Run(tmp_path)).train()
