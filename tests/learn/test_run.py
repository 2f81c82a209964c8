"""The state of a training run on disk."""

import pytest
import torch

from stylerdalle.learn.run import Run


def test_the_state_comes_back_and_a_new_start_ignores_it(tmp_path):
    run = Run(tmp_path)
    assert run.load({"lr": 0.1}) is None
    run.save({"step": 3, "weights": torch.ones(2)})
    state = Run(tmp_path).load({"lr": 0.1})
    assert state is not None and state["step"] == 3 and torch.equal(state["weights"], torch.ones(2))
    assert Run(tmp_path, resume=False).load({"lr": 0.1}) is None


def test_other_options_are_refused_by_name_but_not_other_lengths(tmp_path):
    run = Run(tmp_path)
    run.load({"lr": 0.1, "rank": 8, "steps": 5})
    run.save({"step": 3})
    with pytest.raises(ValueError, match=r"started with rank 8 \(now 4\).*--no-resume"):
        Run(tmp_path).load({"lr": 0.1, "rank": 4, "steps": 5})
    assert Run(tmp_path).load({"lr": 0.1, "rank": 8, "steps": 500}) is not None


def test_a_damaged_state_is_said_to_be_one(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"PK not a state")
    with pytest.raises(ValueError, match=r"state\.pt cannot be read .*--no-resume"):
        Run(tmp_path).load({})


def test_the_curve_is_cut_back_to_the_state(tmp_path):
    run = Run(tmp_path)
    run.load({})
    for step in (1, 2, 3):
        run.log(step=step, loss=step / 2, held_out=None if step < 2 else 0.5)
        if step == 2:
            run.save({"step": step})
    with (tmp_path / "curve.csv").open("a") as stream:
        stream.write("4,0.")
    assert [row["step"] for row in run.rows()] == ["1", "2", "3"]
    again = Run(tmp_path)
    again.load({})
    assert again.rows() == [{"step": "1", "loss": "0.5", "held_out": ""}, {"step": "2", "loss": "1", "held_out": "0.5"}]
    assert (tmp_path / "curve.png").is_file()
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".pt", ".csv", ".png")]  # nothing half-written is left


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_said_to_be_one_and_leaves_the_last_state_and_no_other_file(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.log(step=1, loss=0.5)
    run.save({"step": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ValueError, match=r"cannot be saved in .*No space left on device.*free some.*resume from the last save"):
        run.save({"step": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="choose a folder that can be written"):
        Run(tmp_path / "file" / "run")
