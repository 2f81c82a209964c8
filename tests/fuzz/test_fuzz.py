"""Short versions of `make fuzz`, always on the same inputs; and that the judge sees what is wrong."""

import time
from pathlib import Path

import pytest
from fuzz import harness, run
from fuzz.targets import TARGETS
from fuzz.workflows import missing


@pytest.mark.parametrize("name", ["pictures", "models", "texts", "pickles"])
def test_every_input_gives_a_right_result_or_one_sentence(name: str) -> None:
    with TARGETS[name]() as target:
        judge = harness.run(target, 60, seed=0)
    assert judge.kinds.total() >= 50 and not judge.kinds["failed"]
    assert judge.kinds["refused"] > 10


@pytest.mark.skipif(bool(missing()), reason=f"the workflows need a ComfyUI: {missing()}")
def test_every_workflow_is_refused_done_or_told_in_one_sentence() -> None:
    with TARGETS["workflows"]() as target:
        judge = harness.run(target, 25, seed=0)
    assert judge.kinds["right"] and judge.kinds["refused"]


def test_the_cases_of_all_targets_are_20_000() -> None:
    assert sum(round(20_000 * share) for share in run.SHARES.values()) == 20_000
    assert run.SHARES.keys() == TARGETS.keys()


def slow(draw: object) -> str:
    end = time.process_time() + 2 * harness.SECONDS
    while time.process_time() < end:
        pass
    return "right"


def crash(draw: object) -> str:
    return str({}["x"])


def two_lines(draw: object) -> str:
    raise ValueError("a sentence\nand another")


def foreign(draw: object) -> str:
    return str(int("x"))


@pytest.mark.parametrize("target", [slow, crash, two_lines, foreign])
def test_what_is_slow_crashes_or_is_no_sentence_of_ours_is_a_failure(
    target: harness.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.05)
    judge = harness.Judge(keep=True)
    judge.case(target, lambda strategy: None)
    assert judge.kinds == {"failed": 1} and len(judge.problems) == 1


def test_a_sentence_of_ours_is_not() -> None:
    from stylerdalle.images.decode import decode

    judge = harness.Judge()
    judge.case(lambda draw: str(decode(b"hello", "a")), lambda strategy: None)
    assert judge.kinds == {"refused": 1}
    assert Path(harness.PACK / "stylerdalle").is_dir()
