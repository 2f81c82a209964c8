"""Commands from photos to pictures: stylize, reconstruct."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..distributed import processes, rank_and_world
from ..progress import Progress, split
from ..settings import LINES, SEEDS
from .console import bar, report, say
from .options import add_model_options, add_seed_option, add_softness_option, number

if TYPE_CHECKING:
    from torch import Tensor

    from ..bundle import Bundle
    from ..pipeline import History
    from ..translator.style import Style

STEADY = 0.7  # of videos
FILE = "a file ending in .png, .jpg, .jpeg or .webp"  # images.files.SUFFIXES


def stylize_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="picture files, or videos (.mp4, .mov, .mkv, ...)")
    parser.add_argument(
        "--style",
        required=True,
        metavar="TEXT",
        help="a style's name, a prompt, a style file, or several of them with weights: 'a pencil sketch:0.7, ukiyo-e:0.3'",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help=f"{FILE}, for a video in .mp4, .mov or .mkv, or a folder; several photos need a folder",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    add_look_options(parser.add_argument_group("the look"))
    add_sampling_options(parser.add_argument_group("choice of tokens"))
    add_model_options(parser)
    parser.set_defaults(run=run_stylize)


def add_look_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--negative", default="", metavar="TEXT", help="a prompt to lead away from")
    group.add_argument(
        "--size", type=number(int, 16, 8192), metavar="N", help="px of the output's shortest side (default: the photo's)"
    )
    group.add_argument(
        "--strength",
        type=number(float, 0, 2),
        default=1.0,
        metavar="F",
        help="0 is no style, 1 the style, up to 2 more than the style (default: 1)",
    )
    group.add_argument(
        "--detail",
        type=number(float, 0.25, 4),
        default=1.0,
        metavar="F",
        help="size to work at, relative to the output: 2 makes marks half as large, 0.5 twice as large (default: 1)",
    )
    group.add_argument(
        "--keep-colour",
        type=number(float, 0, 1),
        default=0.0,
        metavar="F",
        help="0 is the style's colours; 1 is the photo's colours with the style's luminance (default: 0)",
    )
    group.add_argument(
        "--keep-lines",
        type=number(float, 0, 1),
        default=LINES,
        metavar="F",
        help="0 is the style alone; up to 1, more of the photo's fine lines, such as eyes and contours, are drawn into it "
        f"(default: {LINES})",
    )
    group.add_argument(
        "--steady",
        type=number(float, 0, 1),
        metavar="F",
        help="for videos, and for photos that are the frames of one, in order: 0 paints each frame by itself; from 0.5 on marks "
        "move with the things in the picture, and the higher the value, the slower their colours change "
        f"(default: {STEADY} for videos, 0 for photos)",
    )


def add_sampling_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--temperature",
        type=number(float, 0, 100),
        default=0.0,
        metavar="F",
        help="0 takes the likeliest tokens, higher values sample more freely (default: 0)",
    )
    group.add_argument(
        "--top-k", type=number(int, 0), default=0, metavar="N", help="sample among the N likeliest tokens; 0 is all (default: 0)"
    )
    group.add_argument(
        "--top-p",
        type=number(float, 1e-6, 1),
        default=1.0,
        metavar="F",
        help="sample among the likeliest tokens whose probabilities sum to F (default: 1, all)",
    )
    add_softness_option(group)
    add_seed_option(group, "seed of the sampling, and of the places of the style's marks")
    group.add_argument(
        "--candidates",
        type=number(int, 1, 64),
        default=1,
        metavar="N",
        help="paint N pictures, with seeds from --seed on, and keep the one that matches the style's prompt best by CLIP "
        "(default: 1)",
    )


def run_stylize(args: argparse.Namespace) -> int:
    import torch

    from ..bundle import load_bundle
    from ..images.files import write_picture
    from ..images.notes import read_notes
    from ..images.video import is_video
    from ..pipeline import History
    from ..resolve import find_style
    from .photos import plan, read

    if args.candidates > 1 and args.temperature == 0:
        raise ValueError(f"--candidates {args.candidates} at temperature 0 would all be the same: add --temperature, such as 1")
    if args.steady and rank_and_world()[1] > 1:
        raise ValueError(f"--steady {args.steady:g} needs all frames in one process: start it without a launcher")
    videos = sum(map(is_video, args.photos))
    if args.candidates > 1 and (args.steady or videos):
        raise ValueError(f"--candidates {args.candidates} is for single photos: leave it out for videos and with --steady")
    jobs, failed = plan(args.photos, args.output, args.overwrite)
    team = processes()
    team.barrier()  # until every process has checked the outputs: none counts as existing because another process wrote it
    for problem in failed:
        report("stylize", problem)
    if not jobs:
        return 2
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    style = find_style(bundle, args.style, args.negative)
    history = History(args.steady or 0)
    for photo, output in team.shard(jobs):
        started = time.monotonic()
        try:
            if is_video(photo):
                say(f"{paint_video(photo, output, style, bundle, args)}, {time.monotonic() - started:.1f} s")
                continue
            images, kept = read(photo, args.size), read_notes(photo)
            with bar(photo.name) as progress:
                picture, notes = paint(images, style, bundle, args, history, progress)
            write_picture(output, picture, args.overwrite, kept)
        except ValueError as problem:  # a bad photo does not stop the others
            report("stylize", problem)
            failed.append(str(problem))
            continue
        height, width = picture.shape[-2:]
        say(f"{output}: {width} x {height} px, style {style.name}{notes}, {time.monotonic() - started:.1f} s")
    failures = torch.tensor([float(len(failed))])
    team.all_reduce([failures])  # all processes end alike: a launcher kills the others when one ends with an error
    return 2 if failures else 0


def paint_video(video: Path, output: Path, style: Style, bundle: Bundle, args: argparse.Namespace) -> str:
    """Stylise a video, a few frames at a time -> what was written."""
    from ..images.files import resized
    from ..images.video import repaint
    from ..pipeline import History

    history = History(STEADY if args.steady is None else args.steady)

    def painted(frames: Tensor) -> Tensor:
        images = frames if args.size is None else resized(frames, args.size)
        return paint(images, style, bundle, args, history)[0]

    with bar(video.name) as progress:
        made = repaint(video, output, painted, args.overwrite, progress)
    return f"{output}: {made.width} x {made.height} px, {made.frames} frames, style {style.name}"


def paint(
    images: Tensor, style: Style, bundle: Bundle, args: argparse.Namespace, history: History, progress: Progress | None = None
) -> tuple[Tensor, str]:
    """Stylise a photo (1, 3 or 4, H, W), or frames -> (the picture, or the best of several candidates; a note on the choice)."""
    import torch

    from ..clip.scores import judge
    from ..images.colour import keep_colour
    from ..pipeline import stylize
    from ..translator.sampling import Sampling

    parts = split(progress, [1] * args.candidates)

    def candidate(k: int) -> Tensor:
        sampling = Sampling(args.temperature, args.top_k, args.top_p, (args.seed + k) % SEEDS, args.softness)
        look = {"strength": args.strength, "detail": args.detail, "keep_lines": args.keep_lines}
        out = stylize(images, style, bundle, sampling=sampling, progress=parts[k], history=history, **look)
        return keep_colour(out, images, args.keep_colour) if args.keep_colour else out

    best = candidate(0)
    if args.candidates == 1:
        return best, ""
    with torch.inference_mode():
        score = judge(bundle.clip, style.prompt or style.name)
        high, seed = score(best), args.seed
        for k in range(1, args.candidates):
            other = candidate(k)
            if (value := score(other)) > high:
                best, high, seed = other, value, (args.seed + k) % SEEDS
    return best, f", seed {seed}, score {high:+.4f}"


def reconstruct_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="a picture file")
    parser.add_argument("--output", required=True, metavar="PATH", help=f"{FILE}, or a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    add_model_options(parser)
    parser.set_defaults(run=run_reconstruct)


def run_reconstruct(args: argparse.Namespace) -> int:
    from torch.nn.functional import mse_loss

    from ..bundle import load_bundle
    from ..images.files import write_picture
    from ..images.notes import read_notes
    from ..tokenizers.codec import decode, encode
    from .photos import plan, read

    jobs, problems = plan([args.photo], args.output, args.overwrite)
    if problems:
        raise ValueError(problems[0])
    output = jobs[0][1]
    photo, kept = read(args.photo), read_notes(args.photo)  # (1, 3 or 4, H, W)
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    source = photo.to(bundle.device)
    alpha = source[:, 3:] if source.shape[1] == 4 else None
    picture = decode(bundle.tokenizer, encode(bundle.tokenizer, source[:, :3], alpha)).cpu()
    write_picture(output, picture, args.overwrite, kept)
    error = mse_loss(picture[:, :3], photo[:, :3]).item()
    psnr = -10 * math.log10(max(error, 1e-10))
    say(f"{output}: {picture.shape[-1]} x {picture.shape[-2]} px, PSNR {psnr:.2f} dB")
    return 0
