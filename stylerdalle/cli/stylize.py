"""Commands that use models: stylize, styles, info, score, reconstruct. Each function sets up its command's options."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from ..bundle import Bundle, load_bundle
from ..clip import scores as reward
from ..distributed import processes
from ..images.colour import keep_colour
from ..images.files import SUFFIXES, check_output, read_picture, resized, write_picture
from ..pipeline import stylize as stylize_images
from ..progress import Progress, split
from ..resolve import find_style
from ..translator.sampling import SEEDS, SOFTNESS, Sampling
from ..translator.style import Style
from .console import bar, report
from .options import add_model_options, number


def stylize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument(
        "--style",
        required=True,
        metavar="TEXT",
        help="a style's name, a prompt, a style file, or several with weights: 'a pencil sketch:0.7, ukiyo-e:0.3'",
    )
    parser.add_argument("--negative", default="", metavar="TEXT", help="a prompt to lead away from")
    parser.add_argument(
        "--output", required=True, metavar="PATH", help=f"a file ({', '.join(SUFFIXES)}), or a folder (needed for several photos)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument("--size", type=number(int, 16, 8192), metavar="N", help="px of the shortest side (default: as it is)")
    parser.add_argument("--strength", type=number(float, 0, 2), default=1.0, help="0 no style, 1 the style, up to 2 (default: 1)")
    parser.add_argument(
        "--temperature", type=number(float, 0, 100), default=0.0, help="0 the likeliest tokens, higher is freer (default: 0)"
    )
    parser.add_argument("--top-k", type=number(int, 0), default=0, help="sample among the k likeliest tokens (default: 0, all)")
    parser.add_argument(
        "--top-p", type=number(float, 1e-6, 1), default=1.0, help="sample among the likeliest of this probability (default: 1)"
    )
    parser.add_argument(
        "--softness",
        type=number(float, 0, 10),
        default=SOFTNESS,
        help=f"0 one token a place, more is smoother (default: {SOFTNESS})",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, SEEDS - 1),
        default=0,
        help="of the sampling, and of where the style's marks lie (default: 0)",
    )
    parser.add_argument(
        "--candidates",
        type=number(int, 1, 64),
        default=1,
        metavar="N",
        help="make N with the seeds from --seed on and keep the one that CLIP finds nearest to the style's prompt (default: 1)",
    )
    parser.add_argument(
        "--detail",
        type=number(float, 0.25, 4),
        default=1.0,
        help="the size to work at: 2 is twice the photo's, for marks half as large, 0.5 is half (default: 1)",
    )
    parser.add_argument(
        "--keep-colour",
        type=number(float, 0, 1),
        default=0.0,
        metavar="F",
        help="0 the style's colours, 1 the photo's, with the style's luminance (default: 0)",
    )
    add_model_options(parser)
    parser.set_defaults(run=run_stylize)


def run_stylize(args: argparse.Namespace) -> int:
    if args.candidates > 1 and args.temperature == 0:
        raise ValueError(f"--candidates {args.candidates} at temperature 0 would all be the same: add --temperature, such as 1")
    jobs, failed = plan(args.photos, args.output, args.overwrite)
    team = processes()
    team.barrier()  # until all have seen what was there before
    for problem in failed:
        report("stylize", problem)
    if not jobs:
        return 2
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    style = find_style(bundle, args.style, args.negative)
    for photo, output in team.shard(jobs):
        started = time.monotonic()
        try:
            images = read(photo, args.size)
            with bar(photo.name) as progress:
                out, notes = paint(images, style, bundle, args, progress)
            write_picture(output, out, args.overwrite)
        except ValueError as problem:  # one bad photo does not stop the others
            report("stylize", problem)
            failed.append(str(problem))
            continue
        height, width = out.shape[-2:]
        print(f"{output}: {width} x {height} px, style {style.name}{notes}, {time.monotonic() - started:.1f} s", flush=True)
    lost = torch.tensor([float(len(failed))])
    team.all_reduce([lost])  # a launcher ends them all when one ends with an error
    return 2 if lost else 0


def paint(images: Tensor, style: Style, bundle: Bundle, args: argparse.Namespace, progress: Progress) -> tuple[Tensor, str]:
    """The stylised picture, the best of the candidates where there are several, and what to say of it."""

    told = split(progress, [1] * args.candidates)

    def one(k: int) -> Tensor:
        sampling = Sampling(args.temperature, args.top_k, args.top_p, (args.seed + k) % SEEDS, args.softness)
        out = stylize_images(
            images, style, bundle, strength=args.strength, sampling=sampling, progress=told[k], detail=args.detail
        )
        return keep_colour(out, images, args.keep_colour) if args.keep_colour else out

    best = one(0)
    if args.candidates == 1:
        return best, ""
    with torch.inference_mode():
        score = reward.judge(bundle.clip, style.prompt or style.name)
        high, seed = score(best), args.seed
        for k in range(1, args.candidates):
            other = one(k)
            if (value := score(other)) > high:
                best, high, seed = other, value, (args.seed + k) % SEEDS
    return best, f", seed {seed}, score {high:+.4f}"


def plan(photos: list[Path], output: str, overwrite: bool) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Where each photo goes, ((photo, output) pairs, problems), checked before any work is done."""
    place = Path(output)
    into_folder = place.is_dir() or output.endswith(("/", os.sep))
    if len(photos) > 1 and not into_folder:
        if place.suffix.lower() in SUFFIXES or place.exists():
            raise ValueError(f"{len(photos)} photos cannot be written to the one file {place}: give a folder as --output")
        into_folder = True
    jobs: list[tuple[Path, Path]] = []
    problems: list[str] = []
    for photo in photos:
        target = place / f"{photo.stem}.png" if into_folder else place
        try:
            check_output(target, overwrite)
            if target.exists() and photo.exists() and target.samefile(photo):
                raise ValueError(f"{target} is the photo itself: choose another output")
            if other := next((p for p, t in jobs if t == target), None):
                raise ValueError(f"{photo} would be written to {target} as {other} is: stylize them into different folders")
        except ValueError as problem:
            problems.append(str(problem))
        else:
            jobs.append((photo, target))
    return jobs, problems


def read(photo: Path, size: int | None = None) -> Tensor:
    """A photo as (1, 3 or 4, H, W), its shortest side `size` px."""
    images, alpha = read_picture(photo)
    if alpha is not None:
        images = torch.cat([images, alpha], 1)
    return images if size is None else resized(images, size)
