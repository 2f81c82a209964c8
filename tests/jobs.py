"""Runs that test_distributed.py does in one process and in several: `python jobs.py JOB FOLDER [STEPS]` writes FOLDER/RANK.pt."""

import contextlib
import dataclasses
import sys
from pathlib import Path

import tiny
import torch
from torch import Tensor
from training.test_tokenizer import pictures

from stylerdalle.distributed import end, rank_and_world
from stylerdalle.learn.pretraining import PretrainConfig, train
from stylerdalle.learn.run import Run
from stylerdalle.training.amortise import AmortiseConfig, amortise
from stylerdalle.training.prompts import Prompt
from stylerdalle.translator.hypernetwork import HyperConfig
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.loop import tune

PRETRAIN = PretrainConfig(
    width=32,
    heads=2,
    encoder_layers=1,
    decoder_blocks=1,
    grid=4,
    steps=6,
    batch=5,
    lr=0.02,
    dropout=0.0,
    whole=0.4,
    kept_weight=0.7,
)
TUNE = {"steps": 4, "batch": 3, "size": 32, "views": 2, "rank": 2, "lr": 0.01, "check_every": 2, "kl_weight": 0.1}


def small_models() -> tuple:
    """Of tiny.py, with a translator whose draws differ: its logits are far apart."""
    tokenizer = tiny.tokenizer()
    translator = tiny.translator(tokenizer)
    translator.outNet.weight /= 20
    return tokenizer, translator, tiny.clip_model()


def pretrain(folder: Path, steps: int = PRETRAIN.steps, **options: int) -> dict[str, Tensor]:
    config = dataclasses.replace(PRETRAIN, **options)
    run = Run(folder / "run")
    if steps < config.steps:
        run.save = stopping(run.save, steps)
    return train(tiny.tokenizer(), pictures(6), config, run, minutes_between_saves=0).state_dict()


def learn(folder: Path, method: str, steps: int = TUNE["steps"], **options: float) -> dict[str, Tensor]:
    """A style; with pairs where their weight is given."""
    own = {"samples": 3} if method == "rloo" else {"softness": 20.0} if method == "direct" else {}
    config = TuneConfig.of(method, **{**TUNE, **own, **options})
    models = small_models()
    photos = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    run = Run(folder / "run")
    if steps < config.steps:
        run.save = stopping(run.save, steps)
    pairs = (photos, 255 - photos, torch.arange(8).view(4, 2))
    learnt = tune(*models, pictures(10), "a ukiyo-e print", config, run, pairs, minutes_between_saves=0)
    return {**learnt.style.tensors, "best": torch.tensor([learnt.best_step, *learnt.held_out])}


def many(folder: Path, steps: int = 3) -> dict[str, Tensor]:
    prompts = [
        Prompt("an ink drawing", "ink", "ink"),
        Prompt("a red picture", "photo", "", "red"),
        Prompt("symbolism", "symbolism"),
    ]
    art = [dataclasses.replace(p, kind="art", captions=("symbolism",)) for p in pictures(3)]
    config = AmortiseConfig(steps=steps, prompts=2, batch=4, lr=0.01, per_filter=24, per_tone=12)
    models = small_models()
    hyper = HyperConfig("lora", 16, 16, 4, 2, noise=0.05)
    return amortise(*models, pictures(3), art, prompts, config, hyper, Run(folder / "run")).state_dict()


def stopping(save, step: int):
    """A save after which the run is interrupted; where it writes nothing, too."""

    def stop(state: dict) -> None:
        save(state)
        if state["step"] == step:
            raise KeyboardInterrupt

    return stop


def damaged(folder: Path) -> dict[str, Tensor]:
    """Ends with an error in process 1 alone, at its second step."""
    run = Run(folder / "run")
    if rank_and_world()[0] == 1:
        real = torch.manual_seed

        def seed(value: int) -> torch.Generator:
            if value % 1_000_003 % (1 << 40) == 1 or value >> 40:
                raise OSError("this process has a reason of its own")
            return real(value)

        torch.manual_seed = seed
    return train(tiny.tokenizer(), pictures(6), PRETRAIN, run).state_dict()


JOBS = {
    "pretrain": pretrain,
    "pretrain-2": lambda folder, **o: pretrain(folder, upscale=2, texture=False, **o),
    "pretrain-halves": lambda folder, **o: pretrain(folder, accumulate=2, **o),
    "dropout": lambda folder, **o: pretrain(folder, dropout=0.1, **o),
    **{method: (lambda folder, m=method, **o: learn(folder, m, **o)) for method in METHODS},
    "pairs": lambda folder, **o: learn(
        folder, "direct", pairs_steps=2, pairs_weight=0.5, pairs_colour_weight=0.1, pairs_batch=3, **o
    ),
    "wide": lambda folder, **o: learn(folder, "direct", batch=1, **o),
    "time": lambda folder, **o: learn(folder, "direct", minutes=1e-6 if rank_and_world()[0] == 0 else 60.0, **o),
    "many": many,
    "damaged": damaged,
}


@contextlib.contextmanager
def exactly():
    """In float32: bfloat16 rounds a gradient before it is summed, so that other parts of a batch round otherwise."""
    real, torch.autocast = torch.autocast, lambda *a, **k: contextlib.nullcontext()
    try:
        yield
    finally:
        torch.autocast = real


def do(job: str, folder: Path, *steps: int) -> dict[str, Tensor]:
    """What the job learnt; interrupted after `steps`, where that is given."""
    options = {"steps": steps[0]} if steps else {}
    with exactly():
        return {name: tensor.detach().clone() for name, tensor in JOBS[job](folder, **options).items()}


if __name__ == "__main__":
    name, place, *steps = sys.argv[1:]
    torch.set_num_threads(1)
    with contextlib.suppress(KeyboardInterrupt):
        torch.save(do(name, Path(place), *map(int, steps)), Path(place) / f"{rank_and_world()[0]}.pt")
    end(0)
