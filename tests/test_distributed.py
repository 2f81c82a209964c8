"""Several processes end where one does. They are real ones, that meet over gloo."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jobs
import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.cli.main import main
from stylerdalle.distributed import ALONE, Processes, processes, rank_and_world
from stylerdalle.learn.run import Run

ROOT = Path(__file__).resolve().parent.parent
CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # of weights that moved by about 0.01: sums in another order, in float32


def environment(**more: str) -> dict[str, str]:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", **more}


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def begin(count: int, *words: str) -> list[subprocess.Popen]:
    """`count` processes of one run, as a launcher starts them."""
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env=environment(**world, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    try:
        said = [process.communicate(timeout=90) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


def do(count: int, job: str, folder: Path, *steps: int) -> dict[str, torch.Tensor] | None:
    """A job in `count` processes -> what the main one has, after a look at whether the others have the same."""
    folder.mkdir(exist_ok=True)
    if count == 1:
        try:
            return jobs.do(job, folder, *steps)
        except KeyboardInterrupt:
            return None
    ended = finish(begin(count, str(ROOT / "tests" / "jobs.py"), job, str(folder), *map(str, steps)))
    assert all(code == 0 for code, _, _ in ended) or steps, ended
    if not (folder / "0.pt").exists():
        return None
    found = [torch.load(folder / f"{rank}.pt") for rank in range(count)]
    for name, tensor in found[0].items():
        assert all(torch.equal(tensor, other[name]) for other in found[1:]), name
    return found[0]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("job", ["pretrain", "pretrain-2", "direct", "rloo", "reinforce", "pairs", "many"])
def test_two_processes_end_where_one_does(job, tmp_path):
    one, two = (do(count, job, tmp_path / str(count)) for count in (1, 2))
    assert_same(one, two)
    runs = [tmp_path / str(count) / "run" for count in (1, 2)]
    for row, other in zip(*(Run(run).rows() for run in runs), strict=True):
        assert numbers(other) == pytest.approx(numbers(row), rel=1e-3, abs=1e-4)
    states = [torch.load(run / "state.pt") for run in runs]
    assert states[1].get("tuning") == pytest.approx(states[0].get("tuning"), abs=1e-6)  # of reinforce: its baseline
    for moments in zip(*(state["optimizer"]["state"].values() for state in states), strict=True):
        mean, other = (m["exp_avg"] for m in moments)  # Adam's step hides the size of a gradient, this does not
        torch.testing.assert_close(other, mean, atol=1e-3 * float(mean.abs().max()), rtol=1e-3)


def numbers(row: dict[str, str]) -> dict[str, float]:
    return {key: float(value or 0) for key, value in row.items()}


@pytest.mark.parametrize("job", ["pretrain", "reinforce"])
@pytest.mark.parametrize("counts", [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(job, counts, tmp_path):
    whole = do(1, job, tmp_path / "whole")
    assert do(counts[0], job, tmp_path / "run", 2) is None
    assert torch.load(tmp_path / "run" / "run" / "state.pt")["step"] == 2
    assert_same(whole, do(counts[1], job, tmp_path / "run"))


def test_a_batch_in_parts_is_as_a_whole_one(tmp_path):
    whole = do(1, "pretrain", tmp_path / "whole")
    assert_same(whole, do(1, "pretrain-halves", tmp_path / "halves"))
    assert_same(whole, do(2, "pretrain-halves", tmp_path / "both"))


def test_a_run_goes_on_with_its_batches_in_parts(tmp_path):
    do(1, "pretrain", tmp_path / "run", 2)
    assert_same(do(1, "pretrain", tmp_path / "whole"), do(1, "pretrain-halves", tmp_path / "run"))


def test_dropout_differs_between_processes_and_the_weights_do_not(tmp_path):
    one, two = (do(count, "dropout", tmp_path / str(count)) for count in (1, 2))  # `do` sees whether all have the same
    assert max((tensor - two[name]).abs().max() for name, tensor in one.items()) > 50 * CLOSE["atol"]


def test_the_main_process_says_when_the_time_is_over(tmp_path):
    do(2, "time", tmp_path / "run")
    assert len(Run(tmp_path / "run" / "run").rows()) == 1


def test_an_error_in_one_process_ends_the_others(tmp_path):
    ended = finish(begin(2, str(ROOT / "tests" / "jobs.py"), "damaged", str(tmp_path)))
    assert [code for code, _, _ in ended] == [1, 1]
    assert "a reason of its own" in ended[1][2]
    assert "another process of this run has ended" in ended[0][2]


def files(tmp_path: Path) -> list[str]:
    tiny.write_bundle(tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for picture in pictures(5):
        (tmp_path / "photos" / f"{picture.key}.png").write_bytes(picture.data)
    return [str(path) for path in sorted((tmp_path / "photos").iterdir())]


def test_a_killed_process_ends_the_other_and_the_run_goes_on_alone(tmp_path):
    files(tmp_path)
    own = {"--images": "photos", "--bundle": "bundle", "--run-dir": "run", "--output": "ink.safetensors"}
    options = {"--style": "ink", "--size": 32, "--batch": 2, "--views": 1, "--rank": 2, "--patience": 0, "--save-every": 0}
    words = ["tune", *(str(w) for k, v in {**options, **{k: tmp_path / v for k, v in own.items()}}.items() for w in (k, v))]
    both = begin(2, "-m", "stylerdalle", *words, "--steps", "100000")
    began, state = time.monotonic(), tmp_path / "run" / "state.pt"
    while not state.exists() and time.monotonic() - began < 60:
        time.sleep(0.1)
    both[1].kill()
    (code, _, said), (killed, _, _) = finish(both)
    assert (code, killed) == (2, -9), said
    assert "another process of this run has ended" in said and "Traceback" not in said
    step = torch.load(state)["step"]
    assert step > 0 and not (tmp_path / "ink.safetensors").exists()
    assert main([*words, "--steps", str(step + 1)]) == 0
    assert Run(tmp_path / "run").rows()[-1]["step"] == str(step + 1)


def stylize_words(tmp_path: Path, photos: list[str]) -> list[str]:
    options = ["--style", "ukiyo-e", "--bundle", str(tmp_path / "bundle"), "--output", f"{tmp_path / 'out'}/"]
    return ["-m", "stylerdalle", "stylize", *photos, *options]


def test_photos_are_stylised_once_each_by_accelerates_launcher(tmp_path):
    words = stylize_words(tmp_path, files(tmp_path))
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", free_port()]
    done = subprocess.run([sys.executable, *launch, *words], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{k}.png" for k in range(5)]
    assert len(re.findall(r"px, style ukiyo-e", done.stdout)) == 5


def test_a_photo_that_fails_in_one_process_stops_no_other_and_all_end_with_an_error(tmp_path):
    photos = files(tmp_path)
    Path(photos[1]).write_bytes(b"no picture")
    ended = finish(begin(2, *stylize_words(tmp_path, [*photos, "missing.png"])))
    assert [code for code, _, _ in ended] == [2, 2], ended
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{k}.png" for k in (0, 2, 3, 4)]
    said = "".join(err for _, _, err in ended)
    assert said.count("1.png") == 1 and said.count("missing.png") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["tune", "--style", "ink", "--images", "photos", "--output", "a.safetensors", "--method", "magic"],
            "'magic' is not known",
        ),
        (["stylize", "a.jpg", "--style", "ink", "--output", "b.png", "--stile", "3"], "--stile"),
        (["styles"], "styles is for one process, and 2 were started"),
    ],
)
def test_bad_input_ends_all_processes_and_is_said_once(words, text, tmp_path):
    began = time.monotonic()
    ended = finish(begin(2, "-m", "stylerdalle", *words))
    assert [code for code, _, _ in ended] == [2, 2]
    said = "".join(err for _, _, err in ended).strip()
    assert text in said and said.count("\n") == 0, said
    assert time.monotonic() - began < 40


def test_processes_without_accelerate_are_told_how_to_have_it(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main(["stylize", "a.jpg", "--style", "ink", "--output", "b.png"]) == 2
    assert "pip install 'comfyui-stylerdalle[scale]'" in capsys.readouterr().err


def test_one_process_needs_no_accelerate(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert rank_and_world() == (0, 1)
    assert processes() is ALONE and ALONE.main and ALONE.device is None
    assert ALONE.shard([1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_item_is_one_processs(world):
    shares = [Processes(rank, world).shard(list(range(5))) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == list(range(5))


def test_one_of_several_processes_ends_before_a_teardown_that_may_abort_it():
    words = "import atexit, os; atexit.register(os.abort); print('said', end=''); from stylerdalle.distributed import end; end(3)"
    alone, one = (
        subprocess.run([sys.executable, "-c", words], env=environment(WORLD_SIZE=world, RANK="0"), capture_output=True)
        for world in ("1", "2")
    )
    assert (alone.returncode, one.returncode, one.stdout) == (-signal.SIGABRT, 3, b"said")


def test_the_main_process_waits_until_the_others_have_spoken():
    words = (
        "import time; from stylerdalle.cli.console import report; from stylerdalle.distributed import end, processes; "
        "time.sleep(1.5 * processes().rank); report('stylize', 'the same problem'); end(2)"
    )
    ended = finish(begin(2, "-c", words))
    assert [code for code, _, _ in ended] == [2, 2]
    assert "".join(err for _, _, err in ended) == "stylerdalle stylize: the same problem\n"
