"""Seconds per step of pretraining at the size of the mini bundle: one process, and several, with one thread each.

Runs on CPUs over gloo. The photos are noise: their content does not change the time of a step. Usage:

    python benchmarks/processes.py [--processes 2] [--steps 20] [--batch 16] [--dropout 0.1]
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKIPPED = 1  # first steps, which are not counted: they include the set-up


def measure(steps: int, batch: int, dropout: float) -> None:
    """Train in this process; the main process prints the seconds per step."""
    import numpy as np
    import torch
    from PIL import Image

    from stylerdalle import checkpoint
    from stylerdalle.bundle import WEIGHTS
    from stylerdalle.device import choose_dtype
    from stylerdalle.distributed import end, leave, processes
    from stylerdalle.learn.pictures import Picture
    from stylerdalle.learn.pretraining import PretrainConfig, train
    from stylerdalle.learn.run import Run

    torch.set_num_threads(1)
    tokenizer = checkpoint.load_tokenizer(WEIGHTS / "mini" / "tokenizer.safetensors", dtype=choose_dtype(torch.device("cpu")))
    pictures = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(8):
            path = Path(folder) / f"{k}.png"
            Image.fromarray(np.random.default_rng(k).integers(256, size=(256, 256, 3), dtype=np.uint8)).save(path)
            pictures.append(Picture(path.name, path.read_bytes()))
        config = PretrainConfig(steps=SKIPPED + steps, batch=batch, dropout=dropout)
        team = processes()
        run, times = Run(Path(folder) / "run"), [time.perf_counter()]
        run.save = lambda state: times.append(time.perf_counter())  # after each step, writes nothing
        train(tokenizer, pictures, config, run, minutes_between_saves=0)
    if team.main:
        print((times[SKIPPED + steps] - times[SKIPPED]) / steps)
    leave()
    end(0)


def seconds(count: int, args: argparse.Namespace) -> float:
    """Seconds per step in `count` processes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ["--steps", args.steps, "--batch", args.batch, "--dropout", args.dropout, "--measure"]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, words)],
            env={**os.environ, **common, "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{count} processes ended with {[process.returncode for process in started]}")
    return float(said[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.steps, args.batch, args.dropout)
    one, several = seconds(1, args), seconds(args.processes, args)
    print("| processes | threads each | seconds per step | times as fast |\n|---|---|---|---|")
    print(f"| 1 | 1 | {one:.2f} | 1 |\n| {args.processes} | 1 | {several:.2f} | {one / several:.2f} |")


if __name__ == "__main__":
    main()
