"""Commands that measure with CLIP: score (pictures against a text), evaluate (the metric of the paper).

The metric (StylerDALLE, arXiv 2303.09268, section 4), with the style alone as the prompt:

    mean over validation photos of 100 * cos(CLIP_image(stylised photo), CLIP_text(prompt))

As in the paper, photos are resized to 256 px at the shortest side and cropped to the centre square. Pixels are normalised as CLIP
was trained; `--no-normalise` leaves that out, as the authors did. The interval is a percentile bootstrap over the photos.
"""

from __future__ import annotations

import argparse
import json
import logging
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import bar, report, say
from .options import add_model_options, add_seed_option, add_softness_option, number

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..translator.style import Style

log = logging.getLogger(__name__)


def score_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="picture files")
    parser.add_argument("--text", required=True, help="what the pictures should show, such as a style prompt")
    parser.add_argument("--json", action="store_true", help='print one JSON object per picture: {"image", "text", "score"}')
    add_model_options(parser)
    parser.set_defaults(run=run_score)


def run_score(args: argparse.Namespace) -> int:
    import torch

    from ..bundle import load_bundle
    from ..clip.scores import judge
    from ..resolve import check_prompt, warn_of_unknown_words
    from .photos import read

    text = check_prompt(args.text, "text")
    bundle = load_bundle(args.bundle, args.device, args.dtype)
    warn_of_unknown_words(bundle.clip_path, text)
    failed = False
    with torch.inference_mode():
        match = judge(bundle.clip, text)
        for path in args.images:
            try:
                picture = read(path)
            except ValueError as problem:
                report("score", problem)
                failed = True
                continue
            value = match(picture)
            if args.json:
                print(json.dumps({"image": str(path), "text": text, "score": round(value, 6)}), flush=True)
            else:
                say(f"{value:+.4f}  {path}")
    return 2 if failed else 0


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", nargs="+", required=True, metavar="PATH", help="held-out photos: pictures, folders of them, or .tar shards"
    )
    parser.add_argument("--style", required=True, metavar="TEXT", help="a style's name, a prompt, or a style file")
    parser.add_argument("--count", type=number(int, 1), metavar="N", help="use only the first N photos (default: all)")
    parser.add_argument(
        "--size",
        type=number(int, 16, 4096),
        default=256,
        metavar="PX",
        help="side of the centre crop (default: 256, the paper's)",
    )
    add_softness_option(parser)
    add_seed_option(parser, "seed of the places of the style's marks")
    parser.add_argument(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="normalise pixels for CLIP by its mean and deviation; the paper's authors did not (default: yes)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    from ..bundle import load_bundle
    from ..learn.metric import bootstrap, mean
    from ..resolve import find_style, warn_of_unknown_words

    bundle = load_bundle(args.bundle, args.device, args.dtype)
    style = find_style(bundle, args.style)
    prompt = style.prompt or style.name
    warn_of_unknown_words(bundle.clip_path, prompt)
    pairs, failed = measure(bundle, style, prompt, args)
    if not pairs:
        given = ", ".join(map(str, args.images))
        raise ValueError(f"there is no photo among {given}: give photos, or shards with pictures of the kind 'photo'")
    stylised, unstylised = ([100 * pair[k] for pair in pairs] for k in (0, 1))
    facts: dict[str, Any] = {
        "style": style.name,
        "prompt": prompt,
        "bundle": Path(args.bundle).name,
        "photos": len(pairs),
        "size": args.size,
        "normalise": args.normalise,
        "score": mean(stylised),
        "interval": bootstrap(stylised),
        "unstylised": mean(unstylised),
        "unstylised_interval": bootstrap(unstylised),
    }
    if args.json:
        print(json.dumps(facts))
    else:
        say(f"100 cos(CLIP(picture), CLIP({prompt!r})), mean of {len(pairs)} photos of {args.size} px, 95 % interval")
        for name, key, interval in (("stylised", "score", "interval"), ("unstylised", "unstylised", "unstylised_interval")):
            low, high = facts[interval]
            print(f"{name + ':':<12}{facts[key]:6.2f}  ({low:.2f} to {high:.2f})")
    return 2 if failed else 0


def measure(bundle: Bundle, style: Style, prompt: str, args: argparse.Namespace) -> tuple[list[tuple[float, float]], int]:
    """(cosines with the prompt of each photo stylised and as it is, number of photos that could not be read)."""
    import numpy as np

    from ..learn.crops import centre_crop, to_tensor
    from ..learn.metric import NOT_PHOTOS, scores
    from ..learn.sources import pictures
    from ..translator.sampling import Sampling

    photos = islice((picture for picture in pictures(args.images) if picture.kind not in NOT_PHOTOS), args.count)
    sampling = Sampling(seed=args.seed, softness=args.softness)
    pairs: list[tuple[float, float]] = []
    failed = 0
    with bar("evaluate") as progress:
        for photo in photos:
            try:
                decoded = photo.decoded()
                image = to_tensor([np.asarray(centre_crop(decoded.over_white(), args.size))])  # (1, 3, size, size)
            except ValueError as problem:  # a bad photo does not stop the others
                report("evaluate", problem)
                failed += 1
                continue
            for remark in decoded.remarks:
                log.warning("%s: %s", photo.key, remark)
            pairs.append(scores(bundle, image, style, prompt, sampling, args.normalise))
            progress(len(pairs), max(args.count or 0, len(pairs)))
    return pairs, failed
