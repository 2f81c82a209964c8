"""Seconds and memory on a GPU, as one table to paste: encode, translate, decode, the whole of stylize, a step of tuning.

Usage:

    python benchmarks/gpu.py                        # or make bench-gpu; under a minute on an H100
    python benchmarks/gpu.py --device cpu --quick   # a rehearsal of the same code

Seconds are medians of `--repeat` calls, the device waited for before and after each; memory is the peak that torch had allocated,
models included. Pictures are on the device. "cold" is the first call of all: CUDA's start, loading, kernels.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import stylerdalle
from stylerdalle.images.files import read_picture
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.pipeline import stylize
from stylerdalle.resolve import find_style
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.translate import translate
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.library import library_exemplars, used_works
from stylerdalle.tune.loop import tune

PHOTO = Path(__file__).parent.parent / "docs" / "demo" / "photo.jpg"
PROMPT = "a ukiyo-e print"


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(call: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Median seconds of calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeat):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def peak(device: torch.device) -> str:
    """Peak memory since the last call, MB; "-" where torch does not count it."""
    if device.type != "cuda":
        return "-"
    found = torch.cuda.max_memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    return f"{found:.0f}"


def picture(side: int, count: int, device: torch.device) -> torch.Tensor:
    """The demo photo, repeated to (count, 3, side, side)."""
    photo = read_picture(PHOTO)[0]
    times = (1, 1, -(-side // photo.shape[2]), -(-side // photo.shape[3]))
    return photo.repeat(*times)[..., :side, :side].repeat(count, 1, 1, 1).to(device)


def use(device: torch.device, dtype: str, side: int, count: int, repeat: int) -> str:
    """A row: seconds of the three steps and of the whole, megapixels a second, memory."""
    bundle = stylerdalle.load_bundle("mini", device, dtype)
    images = picture(side, count, device)
    style = find_style(bundle, PROMPT)
    peak(device)
    content = encode(bundle.tokenizer, images)
    stylised = translate(bundle.translator, bundle.tokenizer, content, [(style, 1.0)])
    calls: list[Callable[[], object]] = [
        lambda: encode(bundle.tokenizer, images),
        lambda: translate(bundle.translator, bundle.tokenizer, content, [(style, 1.0)]),
        lambda: decode(bundle.tokenizer, stylised),
        lambda: stylize(images, style, bundle),
    ]
    seconds = [median(call, device, repeat) for call in calls]
    rate = count * side * side / 1e6 / seconds[-1]
    cells = [f"{count} x {side} px", dtype, *(f"{value:.4f}" for value in seconds), f"{rate:.1f}", peak(device)]
    return "| " + " | ".join(cells) + " |"


def tuning(device: torch.device, exemplars: bool, steps: int, **options: int) -> str:
    """A row: seconds of one step of tuning, without its first and without checks, and memory."""
    bundle = stylerdalle.load_bundle("mini", device, "fp32")
    config = TuneConfig(steps=steps, check_every=10_000, patience=0, **options)
    found = library_exemplars(bundle.features, used_works(bundle, PROMPT), config.exemplar_size) if exemplars else None
    photos = [Picture(str(k), PHOTO.read_bytes()) for k in range(4)]
    times: list[float] = []
    peak(device)

    def tick(_: object) -> None:
        wait(device)
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        tune(bundle.tokenizer, bundle.translator, bundle.clip, photos, PROMPT, config, run, callback=tick, exemplars=found)
    between = [b - a for a, b in itertools.pairwise(times[:-1])]  # the last step checks the held-out score
    name = "direct, CLIP and exemplars" if exemplars else "direct, CLIP"
    return f"| {name} | {config.batch} photos of {config.size} px | {statistics.median(between):.3f} | {peak(device)} |"


def machine(device: torch.device) -> str:
    """Card, driver, torch."""
    if device.type != "cuda":
        return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    properties = torch.cuda.get_device_properties(device)
    try:
        driver = Path("/proc/driver/nvidia/version").read_text().splitlines()[0].split("  ")[1].strip()
    except (OSError, IndexError):
        driver = "not known"
    memory = f"{properties.total_memory / 2**30:.0f} GB"
    return f"{properties.name}, {memory}, driver {driver}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048], metavar="PX")
    parser.add_argument("--dtypes", nargs="+", default=["fp16", "bf16", "fp32"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small size, one dtype, one repeat: does it run?")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("needs CUDA: torch sees no GPU; --device cpu --quick is a rehearsal")
    if args.quick:
        args.sizes, args.dtypes, args.repeat = [128], ["fp32"], 1
    started = time.perf_counter()
    stylize(picture(args.sizes[0], 1, device), PROMPT, stylerdalle.load_bundle("mini", device, args.dtypes[0]))
    wait(device)
    cold = time.perf_counter() - started
    print(f"{machine(device)}\n\ncold, {args.sizes[0]} px, {args.dtypes[0]}: {cold:.2f} s\n")
    print("| pictures | dtype | encode s | translate s | decode s | stylize s | megapixels/s | peak MB |\n" + "|---" * 8 + "|")
    for side, dtype in itertools.product(args.sizes, args.dtypes):
        print(use(device, dtype, side, 1, args.repeat), flush=True)
    for dtype in args.dtypes:
        print(use(device, dtype, args.sizes[min(1, len(args.sizes) - 1)], 8 if not args.quick else 2, args.repeat), flush=True)
    print("\n| tuning step | batch | s | peak MB |\n" + "|---" * 4 + "|")
    small = {"size": 128, "batch": 1, "views": 1, "exemplar_size": 64} if args.quick else {}
    for exemplars in (False, True):
        print(tuning(device, exemplars, 3 if args.quick else 12, **small), flush=True)


if __name__ == "__main__":
    main()
