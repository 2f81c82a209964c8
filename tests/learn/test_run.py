"""The state of a training run on disk."""

import pytest
import torch

from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run, pictures_sha256


def test_the_state_comes_back_and_a_new_start_ignores_it(tmp_path):
    run = Run(tmp_path)
    assert run.load({"lr": 0.1}) is None
    run.save({"step": 3, "weights": torch.ones(2)})
    run.close()
    state = Run(tmp_path).load({"lr": 0.1})
    assert state is not None and state["step"] == 3 and torch.equal(state["weights"], torch.ones(2))
    assert (tmp_path / "state.pt").exists()
    assert Run(tmp_path, resume=False).load({"lr": 0.1}) is None
    assert not (tmp_path / "state.pt").exists()


def test_other_options_are_refused_by_name_but_not_other_lengths(tmp_path):
    run = Run(tmp_path)
    run.load({"lr": 0.1, "rank": 8, "steps": 5})
    run.save({"step": 3})
    run.close()
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
    run.close()
    assert [row["step"] for row in run.rows()] == ["1", "2", "3"]
    again = Run(tmp_path)
    again.load({})
    assert again.rows() == [{"step": "1", "loss": "0.5", "held_out": ""}, {"step": "2", "loss": "1", "held_out": "0.5"}]
    assert (tmp_path / "curve.png").is_file()
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".pt", ".csv", ".png", ".lock")]  # nothing half-written is left


def test_rows_before_the_first_save_do_not_come_twice_and_a_curve_cut_at_its_start_gets_its_columns(tmp_path):
    run = Run(tmp_path)
    run.load({})
    run.log(step=1, loss=0.5)
    run.close()  # killed before it was saved
    again = Run(tmp_path)
    assert again.load({}) is None
    assert again.rows() == []
    (tmp_path / "curve.csv").write_text("")  # the disk was full
    again.log(step=1, loss=0.5)
    assert again.rows() == [{"step": "1", "loss": "0.5"}]


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


def test_a_run_with_other_pictures_or_models_is_refused_and_left_alone(tmp_path):
    run = Run(tmp_path, inputs={"pictures": "a", "clip": "b"})
    run.load({"lr": 0.1})
    run.save({"step": 3})
    run.close()
    before = (tmp_path / "state.pt").read_bytes()
    for other in ({"pictures": "x", "clip": "b"}, {"pictures": "a"}):
        with pytest.raises(ValueError, match="was started with other (pictures|clip): resume it with the same.*--no-resume"):
            Run(tmp_path, inputs=other).load({"lr": 0.1})
    assert (tmp_path / "state.pt").read_bytes() == before
    assert Run(tmp_path, inputs={"pictures": "a", "clip": "b"}).load({"lr": 0.1}) is not None


def test_a_state_that_does_not_tell_its_pictures_is_resumed_with_a_warning(tmp_path, caplog):
    torch.save({"step": 3, "config": {"lr": 0.1}}, tmp_path / "state.pt")
    assert Run(tmp_path, inputs={"pictures": "a"}).load({"lr": 0.1}) is not None
    assert "does not tell what pictures" in caplog.text


def test_a_longer_run_is_not_passed_off_as_a_shorter_one(tmp_path):
    run = Run(tmp_path)
    run.load({"steps": 80, "epochs": 0})
    run.save({"step": 80})
    run.close()
    with pytest.raises(ValueError, match="has done 80 steps, more than the 40 asked for"):
        Run(tmp_path).load({"steps": 40, "epochs": 0})
    with pytest.raises(ValueError, match="in epochs False"):  # the order of the samples is another one
        Run(tmp_path).load({"steps": 90, "epochs": 3})
    assert Run(tmp_path).load({"steps": 90, "epochs": 0}) is not None


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run = Run(tmp_path)
    run.load({})
    with pytest.raises(ValueError, match="another process trains in .*--run-dir"):
        Run(tmp_path).load({})
    with pytest.raises(ValueError, match="another process trains"):
        Run(tmp_path, resume=False).load({})
    run.close()
    (tmp_path / ".state.pt.12345.tmp").write_bytes(b"left behind by a kill")
    assert Run(tmp_path).load({}) is None
    assert not (tmp_path / ".state.pt.12345.tmp").exists()


def test_files_that_are_of_no_run_are_not_replaced(tmp_path):
    (tmp_path / "curve.png").write_bytes(b"a photo of a curve")
    with pytest.raises(ValueError, match=r"holds a curve\.png of something else"):
        Run(tmp_path)


def test_pictures_are_known_by_name_content_order_and_captions():
    one, two = Picture("a", b"1"), Picture("b", b"2")
    other = [[two, one], [one], [one, Picture("b", b"3")], [one, Picture("c", b"2")], [one, Picture("b", b"2", ("x",))]]
    hashes = [pictures_sha256(some) for some in ([one, two], *other)]
    assert len(set(hashes)) == len(hashes)
    assert pictures_sha256([Picture("a", b"1"), two]) == hashes[0]
