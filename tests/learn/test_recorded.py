"""Recorded steps, without a GPU: what they do on a CPU, where CUDA refuses, and with a graph that only counts."""

import logging

import pytest
import torch

from stylerdalle.learn.recorded import Recorded


def step(weight: torch.Tensor):
    def work(x: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = (weight * x).sum()
        loss.backward()
        return {"loss": loss.detach()}

    return work


def test_on_a_cpu_the_function_is_called_as_it_is():
    weight = torch.ones(3, requires_grad=True)
    recorded = Recorded(step(weight), [weight], torch.device("cpu"))
    assert recorded(torch.tensor([1.0, 2.0, 3.0]))["loss"] == 6
    assert weight.grad.tolist() == [1, 2, 3]


def test_where_cuda_refuses_it_is_called_as_it_is_and_a_line_says_so(monkeypatch, caplog):
    weight = torch.ones(2, requires_grad=True)
    recorded = Recorded(step(weight), [weight], torch.device("cpu"))
    recorded.plain = False

    def refuse() -> None:
        step(weight)(torch.tensor([9.0, 9.0]))  # gradients of the warm-up, which must not stay
        raise RuntimeError("CUDA error: operation not permitted\nsecond line")

    monkeypatch.setattr(recorded, "_record", refuse)
    with caplog.at_level(logging.WARNING):
        assert recorded(torch.tensor([1.0, 2.0]))["loss"] == 3
    assert weight.grad.tolist() == [1, 2]
    assert "(CUDA error: operation not permitted)" in caplog.text and "second" not in caplog.text
    weight.grad = None
    assert recorded(torch.tensor([5.0, 2.0]))["loss"] == 7 and len(caplog.records) == 1


def test_a_replay_reads_the_new_inputs_and_gives_the_gradients(monkeypatch):
    weight = torch.ones(2, requires_grad=True)
    recorded = Recorded(step(weight), [weight], torch.device("cpu"))
    recorded.plain = False

    class Graph:
        def replay(self) -> None:
            recorded.numbers["loss"].copy_((weight.detach() * recorded.inputs[0]).sum())
            recorded.gradients[0].copy_(recorded.inputs[0])

    def record() -> None:
        recorded.graph, recorded.numbers, recorded.gradients = Graph(), {"loss": torch.zeros(())}, [torch.zeros(2)]

    monkeypatch.setattr(recorded, "_record", record)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)
    for values in ([1.0, 2.0], [3.0, 4.0]):
        weight.grad = None
        given = torch.tensor(values)
        assert recorded(given)["loss"] == sum(values) and weight.grad.tolist() == values
    assert recorded.inputs[0] is not given


@pytest.mark.parametrize("count", [1, 3])
def test_numbers_and_inputs_keep_their_order(count):
    weight = torch.ones(1, requires_grad=True)
    recorded = Recorded(lambda *x: {str(k): value for k, value in enumerate(x)}, [weight], torch.device("cpu"))
    found = recorded(*(torch.tensor(float(k)) for k in range(count)))
    assert [float(found[str(k)]) for k in range(count)] == list(range(count))
