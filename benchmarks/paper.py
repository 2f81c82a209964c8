"""The paper's procedure: the cost of one step at full size, and the whole chain of commands at a small size.

Usage:

    python benchmarks/paper.py full  [--batch 2]
    python benchmarks/paper.py chain --images TRAIN.tar --heldout HELDOUT.tar [--count 160] [--output FOLDER]

`full` uses random weights of the official sizes (DALL-E's dVAE, the paper's translator, CLIP ViT-B/32). It prints parameters,
counted floating point operations per picture, seconds of encoding, of two pretraining steps and of one tuning step of `paper-1`
with a reduced batch, and the peak memory of the process. `chain` runs prepare, pretrain, tune and evaluate with mini's tokenizer
and CLIP, and stops at the first exit code that is not 0. Held-out photos are used only by evaluate.
"""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode
from tuning import official_sizes, peak_memory

from stylerdalle.bundle import WEIGHTS
from stylerdalle.clip.scores import embed_images
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.prepare import PrepareConfig, prepare
from stylerdalle.learn.prepared import PreparedTokens
from stylerdalle.learn.pretraining import PretrainConfig, train
from stylerdalle.learn.run import Run
from stylerdalle.learn.shards import write_shard
from stylerdalle.learn.sources import entries, read
from stylerdalle.tokenizers.dvae import DVAE
from stylerdalle.translator.model import Translator
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.loop import tune
from stylerdalle.tune.presets import pretrain_options, tune_options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("full", "chain"))
    parser.add_argument("--batch", type=int, default=2, help="batch of the steps at full size; the paper has 32 and 16")
    parser.add_argument("--images", nargs="+", help="shards to train the chain on")
    parser.add_argument("--heldout", nargs="+", help="shards to evaluate the chain on")
    parser.add_argument("--count", type=int, default=160, help="number of pictures to train on")
    parser.add_argument("--output", type=Path, help="folder that keeps the chain's files (default: they are deleted)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.what == "full":
            full(Path(folder), args.batch)
        else:
            chain(args.output or Path(folder), args)


def photos(count: int) -> list[Picture]:
    """Noise of 300 x 260 px with captions."""
    out = []
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)):
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((300, 260), Image.Resampling.BICUBIC).save(stream, "PNG")
        out.append(Picture(f"{i:03d}.png", stream.getvalue(), captions=(f"thing {i}",)))
    return out


def full(folder: Path, batch: int) -> None:
    """Measure one step of everything with random weights of the official sizes."""
    tokenizer, translator, model = official_sizes()
    visual = sum(p.numel() for p in model.visual.parameters())
    print(f"threads {torch.get_num_threads()}, torch {torch.__version__}, batch {batch}")
    for name, module in (("tokenizer", tokenizer), ("translator", translator), ("CLIP", model)):
        print(f"parameters of the {name}: {sum(p.numel() for p in module.parameters()):,}", flush=True)
    print(f"parameters of CLIP's image half: {visual:,}")
    print_operations(tokenizer, translator, model)

    times: list[float] = []  # of the end of each optimiser step
    hook = register_optimizer_step_post_hook(lambda *_: times.append(time.monotonic()))
    trained = time_pretraining(tokenizer, folder, batch, times)
    times.clear()
    time_tuning(tokenizer, trained, model, folder, batch, times)
    hook.remove()


def print_operations(tokenizer: DVAE, translator: Translator, model: Any) -> None:
    half, whole = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 256, 256)
    source = tokenizer.embed(torch.randint(8192, (1, 16, 16))).flatten(1, 2)  # (1, 256, D_tok)
    target = torch.randint(8192, (1, 32, 32))

    def both_ways() -> None:
        translator.requires_grad_(True)
        torch.nn.functional.cross_entropy(translator(source)[0], target.flatten()).backward()
        translator.requires_grad_(False)

    for name, work in {
        "tokenizer, encode 128 px": lambda: tokenizer.encode(half),
        "tokenizer, encode 256 px": lambda: tokenizer.encode(whole),
        "translator, forward": lambda: translator(source),
        "translator, forward and backward": both_ways,
        "tokenizer, decode 256 px": lambda: tokenizer.decode(target),
        "CLIP, image": lambda: embed_images(model, whole),
    }.items():
        count, seconds = counted(work)
        print(f"{name}: {count / 1e9:.2f} GFLOP per picture, {seconds:.2f} s", flush=True)


def time_pretraining(tokenizer: DVAE, folder: Path, batch: int, times: list[float]) -> Translator:
    """Prepare a batch of photos and pretrain on them for two steps -> the translator."""
    (folder / "photos").mkdir()
    for picture in photos(batch):
        (folder / "photos" / picture.key).write_bytes(picture.data)
    began = time.monotonic()
    prepare(tokenizer, "0" * 64, [folder / "photos"], folder / "tokens", PrepareConfig(), batch=batch)
    print(f"prepare: {(time.monotonic() - began) / batch:.2f} s per picture; peak {peak_memory():.0f} MB", flush=True)
    config = PretrainConfig(**pretrain_options("paper-1", {"steps": 2, "batch": batch}))
    began = time.monotonic()
    trained = train(tokenizer, PreparedTokens(folder / "tokens", "0" * 64, (16, 32)), config, Run(folder / "pretrain"))
    steps = f"{times[0] - began:.2f} s with the set-up, {times[1] - times[0]:.2f} s"
    print(f"pretraining, 2 steps of {batch}: {steps}; peak {peak_memory():.0f} MB", flush=True)
    assert sum(p.numel() for p in trained.parameters()) == 37_914_112
    return trained.requires_grad_(False)


def time_tuning(tokenizer: DVAE, translator: Translator, model: Any, folder: Path, batch: int, times: list[float]) -> None:
    """Tune for one step."""
    ticks: list[float] = []
    options = tune_options("paper-1", {"steps": 1, "batch": batch, "held_out": 1})
    tuned = tune(
        tokenizer,
        translator,
        model,
        photos(batch + 1),
        "a ukiyo-e print",
        TuneConfig.of(options.pop("method"), **options),
        Run(folder / "tune"),
        tick=lambda: ticks.append(time.monotonic()),
    )
    size = sum(tensor.numel() for tensor in tuned.style.tensors.values())
    took = f"{times[0] - ticks[0]:.2f} s"
    print(f"tuning, 1 step of {batch}: {took}; {size:,} parameters tuned; peak {peak_memory():.0f} MB", flush=True)


def counted(work: Callable[[], object]) -> tuple[int, float]:
    """(floating point operations, seconds in float32). Attention runs as plain products: the counter knows no other on a CPU."""
    with torch.set_grad_enabled(True), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    began = time.monotonic()
    work()
    return counter.get_total_flops(), time.monotonic() - began


def chain(folder: Path, args: argparse.Namespace) -> None:
    """Run every command of the procedure, with mini's tokenizer and CLIP and a translator of 8 x 8 to 16 x 16 tokens."""
    if not (args.images and args.heldout):
        sys.exit("chain needs --images and --heldout")
    bundle = folder / "bundle"
    bundle.mkdir(parents=True)
    for part in ("tokenizer", "clip"):
        shutil.copy(WEIGHTS / "mini" / f"{part}.safetensors", bundle)
    some = islice(read(entries(args.images)), args.count)
    write_shard(
        folder / "photos.tar",
        ((f"{i:06d}", {entry.name.rsplit(".", 1)[1]: data, "json": note or b"{}"}) for i, (entry, data, note) in enumerate(some)),
    )
    sizes = "--width 128 --heads 4 --encoder-layers 1 --decoder-blocks 1 --grid 8 --batch 8 --steps 20 --warm 5"
    tuned = "--size 128 --batch 2 --steps 2 --held-out 2"
    for words in (
        f"prepare --bundle {bundle} --images {folder}/photos.tar --sides 64 128 --per-shard 64 --output {folder}/tokens",
        f"pretrain --preset paper-1 --tokenizer {bundle}/tokenizer.safetensors --tokens {folder}/tokens "
        f"--run-dir {folder}/runs/pretrain --output {bundle}/translator.safetensors {sizes}",
        f"tune --preset paper-1 --bundle {bundle} --style 'a ukiyo-e print' --images {folder}/tokens --device cpu "
        f"--run-dir {folder}/runs/tune --output {bundle}/styles/ukiyo-e.safetensors {tuned}",
        f"evaluate --bundle {bundle} --style ukiyo-e --images {' '.join(map(shlex.quote, args.heldout))} --count 20 --json",
    ):
        print(f"$ stylerdalle {words}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "stylerdalle", *shlex.split(words)]).returncode
        print(f"exit code {code}, {time.monotonic() - began:.1f} s", flush=True)
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
