"""A tuning run that is killed, again and again, ends as one that was not.

STYLERDALLE_KILLS sets how many kills (default 3: each costs the start of a process).
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import tiny
import torch
from safetensors.torch import load_file
from training.test_tokenizer import pictures

from stylerdalle.learn.run import Run

KILLS = int(os.environ.get("STYLERDALLE_KILLS", "3"))


def command(folder: Path, run: str) -> list[str]:
    options = {
        "style": "a ukiyo-e print", "images": folder / "photos", "bundle": folder / "bundle",
        "steps": 40 + 10 * KILLS, "size": 32,
        "batch": 1, "views": 1, "rank": 2, "softness": 20, "check-every": 5, "patience": 0, "device": "cpu", "threads": 1,
        "save-every": 0, "run-dir": folder / run, "output": folder / f"{run}.safetensors",
    }  # fmt: skip
    return [sys.executable, "-m", "stylerdalle", "tune", *(str(word) for k, v in options.items() for word in (f"--{k}", v))]


def test_a_run_killed_at_any_moment_loses_nothing_but_time(tmp_path):
    tiny.write_bundle(tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for picture in pictures(6):
        (tmp_path / "photos" / f"{picture.key}.png").write_bytes(picture.data)
    subprocess.run(command(tmp_path, "whole"), check=True, capture_output=True)
    whole = Run(tmp_path / "whole").rows()

    chance, before, kills = random.Random(0), 0, 0
    while kills < KILLS:
        process = subprocess.Popen(command(tmp_path, "killed"), stderr=subprocess.PIPE)
        began = time.monotonic()
        while process.poll() is None and step(tmp_path) <= before and time.monotonic() - began < 60:
            time.sleep(0.01)  # until it works again
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        assert step(tmp_path) >= before, "steps that were saved are lost"
        before = step(tmp_path)
        assert not (tmp_path / "killed.safetensors").exists() or before == len(whole)
    assert before > 0
    subprocess.run(command(tmp_path, "killed"), check=True, capture_output=True)
    assert Run(tmp_path / "killed").rows() == whole
    one, other = (load_file(tmp_path / f"{run}.safetensors") for run in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def step(folder: Path) -> int:
    """Of the saved state; it must be whole at any moment."""
    path = folder / "killed" / "state.pt"
    return torch.load(path, weights_only=True)["step"] if path.exists() else 0
