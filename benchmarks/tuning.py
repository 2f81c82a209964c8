"""Speed of tuning: the paper's procedure against this project's default, with the same models, photos and seed.

Usage:

    python benchmarks/tuning.py race   --photos TRAIN --heldout HELDOUT --output FOLDER [--minutes 30] [--prompt TEXT]
    python benchmarks/tuning.py ablate --photos TRAIN --heldout HELDOUT --output FOLDER [--steps 60]
    python benchmarks/tuning.py cost   [--steps 3]

`race` and `ablate` write each run's curve with seconds to FOLDER/NAME.csv, and print a table; `race` also draws FOLDER/race.png
and prints the ratio of the times. `cost` prints seconds per step and peak memory of every method, with mini and with random
weights of the official sizes.
Scores are cosines of CLIP's embeddings of stylised photos and of the style prompt: in the curves on photos that the run itself
holds out, in the table on HELDOUT.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from stylerdalle import load_bundle
from stylerdalle.bundle import Bundle
from stylerdalle.clip.protocol import CLIPModel
from stylerdalle.clip.scores import score_pictures
from stylerdalle.learn.crops import centre_crop, to_tensor
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.learn.sources import read_pictures
from stylerdalle.pipeline import stylize
from stylerdalle.tokenizers import ImageTokenizer
from stylerdalle.tokenizers.dvae import DVAE
from stylerdalle.translator.identity import start_as_identity
from stylerdalle.translator.model import Translator, TranslatorConfig
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.loop import TuneState, tune

# the parts of the default, each removed or replaced alone
ABLATIONS: dict[str, dict] = {
    "default": {},
    "no directional term": {"directional_weight": 0.0},
    "no patches: the whole picture": {"patch_weight": 0.0, "directional_weight": 0.0, "caption_weight": 2.0},
    "no KL": {"kl_weight": 0.0},
    "one token a place": {"softness": 0.0},
    "whole decoder instead of an adapter": {"rank": 0, "lr": 1e-4},
    "one view instead of four": {"views": 1},
    "rloo instead of direct": {"method": "rloo"},
    "reinforce with the default's options": {"method": "reinforce"},
}


@dataclass
class Result:
    name: str
    curve: list[tuple[float, float]]  # seconds, score on the photos that the run holds out
    seconds: float
    steps: int
    kl: float
    score: float  # on HELDOUT


def run(
    bundle: Bundle, photos: list[Picture], heldout: list[Picture], prompt: str, name: str, config: TuneConfig, folder: Path
) -> Result:
    """Tune once from the start -> the result; writes its curve to FOLDER/NAME.csv."""
    curve: list[tuple[float, float]] = []
    last: list[TuneState] = []
    started = time.monotonic()

    def watch(state: TuneState) -> None:
        last[:] = [state]
        if state.held_out is not None:
            curve.append((time.monotonic() - started, state.held_out))
            print(f"{name}: step {state.step}, {curve[-1][0]:.0f} s, score {state.held_out:.4f}", flush=True)

    state = Run(folder / "runs" / name.replace(" ", "-").replace(":", ""), resume=False)
    learnt = tune(bundle.tokenizer, bundle.translator, bundle.clip, photos, prompt, config, state, callback=watch)
    seconds = time.monotonic() - started
    images = to_tensor([np.asarray(centre_crop(p.open(), 256)) for p in heldout])
    painted = torch.cat([stylize(image, learnt.style, bundle) for image in images.split(1)])
    score = score_pictures(bundle.clip, painted, prompt).mean().item()
    with (folder / f"{name.replace(' ', '-').replace(':', '')}.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("seconds", "held_out"), *curve])
    return Result(name, curve, seconds, learnt.steps, last[-1].kl or 0.0, score)


def table(results: list[Result]) -> None:
    print("| run | steps | seconds per step | KL | score on held-out photos |\n|---|---|---|---|---|")
    for r in results:
        print(f"| {r.name} | {r.steps} | {r.seconds / r.steps:.2f} | {r.kl:.2f} | {r.score:.4f} |")


def race(args: argparse.Namespace, bundle: Bundle, photos: list[Picture], heldout: list[Picture]) -> None:
    paper = TuneConfig.of(
        "reinforce", steps=1_000_000, minutes=args.minutes, patience=0, held_out=12, check_every=4, normalise=True
    )
    ours = TuneConfig(steps=args.steps, patience=0, held_out=12, check_every=4)
    results = [run(bundle, photos, heldout, args.prompt, "default", ours, args.output)]
    results.append(run(bundle, photos, heldout, args.prompt, "paper mode", paper, args.output))
    table(results)
    best = max(score for _, score in results[1].curve)
    passed = next((seconds for seconds, score in results[0].curve if score > best), math.inf)
    print(
        f"paper mode's best in {results[1].seconds:.0f} s: {best:.4f}; the default passes it after {passed:.0f} s, "
        f"1/{results[1].seconds / passed:.0f} of the time"
    )
    plot(results).save(args.output / "race.png")


def plot(results: list[Result], size: tuple[int, int] = (900, 460)) -> Image.Image:
    """Score against seconds (logarithmic), one line per run."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    points = [p for r in results for p in r.curve]
    low_x, high_x = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    left, top, right, bottom = 70, 30, size[0] - 20, size[1] - 40

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / max(high_x - low_x, 1e-9)
        return left + across * (right - left), bottom - (y - low_y) / max(high_y - low_y, 1e-9) * (bottom - top)

    draw.rectangle((left, top, right, bottom), outline="#999999")
    for seconds in (1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600):
        if low_x <= math.log10(seconds) <= high_x:
            x = place(seconds, low_y)[0]
            draw.line((x, top, x, bottom), fill="#e4e4e4")
            draw.text((x - 8, bottom + 6), f"{seconds} s", fill="black")
    for y in np.linspace(low_y, high_y, 5):
        draw.text((8, place(10**low_x, y)[1] - 6), f"{y:.3f}", fill="black")
    for i, (result, colour) in enumerate(zip(results, ("#1f5fa8", "#c0392b"), strict=False)):
        draw.line([place(*p) for p in result.curve], fill=colour, width=3)
        draw.text((left + 10, top + 8 + 16 * i), result.name, fill=colour)
    draw.text((left, 8), "score on held-out photos against seconds of tuning", fill="black")
    return image


def ablate(args: argparse.Namespace, bundle: Bundle, photos: list[Picture], heldout: list[Picture]) -> None:
    results = []
    for name, change in ABLATIONS.items():
        options = {"steps": args.steps, "patience": 0, **change}
        results.append(run(bundle, photos, heldout, args.prompt, name, TuneConfig(**options), args.output))
        table(results)


def cost(args: argparse.Namespace) -> None:
    print("| models | method | photos per step | seconds per step | memory with models loaded, MB | peak while tuning, MB |")
    print("|---|---|---|---|---|---|")
    for size in ("mini", "official"):
        for method in METHODS:
            # one process each: peak memory is that of a process's whole life
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                seconds, loaded, peak = pool.submit(measure, size, method, args.steps).result()
            print(
                f"| {size} | {method} | {TuneConfig.of(method).batch} | {seconds:.2f} | {loaded:.0f} | {peak:.0f} |", flush=True
            )


def measure(size: str, method: str, steps: int) -> tuple[float, float, float]:
    """(seconds per step after the first, MB before the first, peak MB)."""
    models = official_sizes() if size == "official" else mini_models()
    window = models[0].downsample * models[1].config.grid * models[1].config.upscale
    noise = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    photos = []
    for i, pixels in enumerate(noise):
        stream = BytesIO()
        Image.fromarray(pixels).resize((384, 384), Image.Resampling.BICUBIC).save(stream, "PNG")
        photos.append(Picture(str(i), stream.getvalue()))
    config = TuneConfig.of(method, steps=steps + 1, size=-(-TuneConfig.size // window) * window, patience=0, check_every=10**6)
    at: list[float] = []
    loaded = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        tune(*models, photos, "a ukiyo-e print", config, Run(folder), callback=lambda _: at.append(time.monotonic()))
    return (at[-2] - at[0]) / (steps - 1), loaded, peak_memory()  # the last step is longer: it scores the held-out photos


def peak_memory() -> float:
    """Peak memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mini_models() -> tuple[ImageTokenizer, Translator, CLIPModel]:
    bundle = load_bundle("mini", dtype="fp32")
    return bundle.tokenizer, bundle.translator, bundle.clip


def official_sizes() -> tuple[ImageTokenizer, Translator, CLIPModel]:
    """Random weights of the sizes of DALL-E's dVAE, the paper's translator and CLIP ViT-B/32."""
    from dall_e import Decoder, Encoder

    from stylerdalle.clip.package import clip

    torch.manual_seed(0)
    tokenizer = DVAE(Encoder(), Decoder()).eval().requires_grad_(False)
    sizes = TranslatorConfig(tokenizer.embed_dim, tokenizer.vocab_size, 512, 8, 4, 4, grid=16, upscale=2)
    translator = Translator(sizes).eval().requires_grad_(False)
    start_as_identity(translator, tokenizer.embed(torch.arange(tokenizer.vocab_size)[None, None])[0, 0])
    model = clip.model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).eval().requires_grad_(False)
    return tokenizer, translator, model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("race", "ablate", "cost"))
    parser.add_argument("--photos", nargs="+", help="shards or folders with the photos to tune on")
    parser.add_argument("--heldout", nargs="+")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--prompt", default="a ukiyo-e print")
    parser.add_argument("--minutes", type=float, default=30, help="of the paper's procedure")
    parser.add_argument("--steps", type=int, help="of a run (default: 60); of cost (default: 3)")
    parser.add_argument("--count", type=int, default=120, help="number of photos to tune on")
    args = parser.parse_args()
    if args.what == "cost":
        args.steps = args.steps or 3
        return cost(args)
    if not (args.photos and args.heldout and args.output):
        parser.error(f"{args.what} needs --photos, --heldout and --output")
    args.steps = args.steps or 60
    args.output.mkdir(parents=True, exist_ok=True)
    photos = [p for p in read_pictures(args.photos) if p.kind == "photo"]
    photos = photos[:: max(1, len(photos) // args.count)][: args.count]
    heldout = [p for p in read_pictures(args.heldout) if p.kind == "photo"][::12]
    bundle = load_bundle("mini", dtype="fp32")
    {"race": race, "ablate": ablate}[args.what](args, bundle, photos, heldout)


if __name__ == "__main__":
    main()
