"""The published metric (StylerDALLE, arXiv 2303.09268, section 4): how well CLIP finds a style's prompt in stylised photos.

    mean over validation photos of 100 * cos(CLIP_image(output), CLIP_text(prompt)), the prompt being the style alone

Photos are resized to 256 px at the shortest side and cut to the centre square, as in the paper. CLIP's pixels are normalised
as it was trained; `--no-normalise` is as the paper's authors did. The interval is a percentile bootstrap over the photos.

    stylerdalle evaluate --images val2014/ --style "a ukiyo-e print" --count 500
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np

from ..learn.metric import NOT_PHOTOS, bootstrap, mean, scores
from ..translator.sampling import SEEDS, SOFTNESS, Sampling
from .options import add_model_options, number


def evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", nargs="+", required=True, metavar="PATH", help="held-out photos: pictures, folders of them, or .tar shards"
    )
    parser.add_argument("--style", required=True, metavar="TEXT", help="a style's name, a prompt, or a style file")
    parser.add_argument("--count", type=number(int, 1), metavar="N", help="the first N photos (default: all)")
    parser.add_argument(
        "--size", type=number(int, 16, 4096), default=256, help="px of the centre crop (default: 256, the paper's)"
    )
    parser.add_argument(
        "--softness", type=number(float, 0, 10), default=SOFTNESS, help=f"0 one token a place, the paper's (default: {SOFTNESS})"
    )
    parser.add_argument("--seed", type=number(int, 0, SEEDS - 1), default=0, help="of the style's marks (default: 0)")
    parser.add_argument(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pixels for CLIP by its mean and deviation; no is as the paper's authors did (default: yes)",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    add_model_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    from ..bundle import load_bundle
    from ..learn.crops import centre_crop, to_tensor
    from ..learn.sources import pictures
    from ..resolve import find_style, warn_of_unknown_words
    from .console import bar, report

    bundle = load_bundle(args.bundle, args.device, args.dtype)
    style = find_style(bundle, args.style)
    prompt = style.prompt or style.name
    warn_of_unknown_words(bundle.clip_path, prompt)
    found = islice((p for p in pictures(args.images) if p.kind not in NOT_PHOTOS), args.count)
    sampling = Sampling(seed=args.seed, softness=args.softness)
    pairs: list[tuple[float, float]] = []
    failed = 0
    with bar("evaluate") as progress:
        for picture in found:
            try:
                photo = to_tensor([np.asarray(centre_crop(picture.open(), args.size))])
            except ValueError as problem:  # one bad photo does not stop the others
                report("evaluate", problem)
                failed += 1
                continue
            pairs.append(scores(bundle, photo, style, prompt, sampling, args.normalise))
            progress(len(pairs), max(args.count or 0, len(pairs)))
    if not pairs:
        raise ValueError(f"there is no photo among {', '.join(map(str, args.images))}: give photos (kind, in a shard's notes)")
    out, plain = ([100 * pair[k] for pair in pairs] for k in (0, 1))
    facts = {
        "style": style.name,
        "prompt": prompt,
        "bundle": Path(args.bundle).name,
        "photos": len(pairs),
        "size": args.size,
        "normalise": args.normalise,
        "score": mean(out),
        "interval": bootstrap(out),
        "unstylised": mean(plain),
        "unstylised_interval": bootstrap(plain),
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print(f"100 cos(CLIP(picture), CLIP({prompt!r})), mean of {len(pairs)} photos of {args.size} px, 95 % interval")
        for what, values in (("stylised", out), ("unstylised", plain)):
            low, high = bootstrap(values)
            print(f"{what + ':':<12}{mean(values):6.2f}  ({low:.2f} to {high:.2f})")
    return 2 if failed else 0
