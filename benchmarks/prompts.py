"""The quality of styles from the network for any prompt (hypernetwork), on held-out photos and prompts.

Usage:

    python benchmarks/prompts.py score --heldout HELDOUT [--photos 12]    # mean CLIP score by kind of prompt, 95 % intervals
    python benchmarks/prompts.py speed [--size 512]                       # seconds per picture, against a tuned style
    python benchmarks/prompts.py sheet --heldout HELDOUT --output FILE    # every held-out prompt on three photos
    python benchmarks/prompts.py strip PHOTO --output FILE --style A --style B  # one prompt turning into another

Scores are mean cosines of CLIP's embeddings of stylised photos and of the prompt. The reward trains exactly these, so they
serve to compare seen with unseen prompts and the network with tuned styles, not to tell whether people like the pictures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylerdalle import load_bundle
from stylerdalle.bundle import Bundle
from stylerdalle.clip.scores import score_pictures
from stylerdalle.images.files import over_white, read_picture, to_image
from stylerdalle.images.sheet import sheet
from stylerdalle.learn.crops import centre_crop, to_tensor
from stylerdalle.learn.sources import read_pictures
from stylerdalle.pipeline import stylize
from stylerdalle.resolve import find_style, list_styles
from stylerdalle.training.prompts import PROMPTS, read_prompts
from stylerdalle.translator.style import Style

SEEN = 40  # prompts drawn at random from those trained on
KEYS = ["000003", "000120", "000290"]


def photos(path: Sequence[str], size: int, count: int) -> Tensor:
    """Held-out photos spread over the shard, (count, 3, size, size)."""
    found = [p for p in read_pictures(path) if p.kind == "photo"]
    return to_tensor([np.asarray(centre_crop(p.open(), size)) for p in found[:: max(1, len(found) // count)][:count]])


def scores(bundle: Bundle, images: Tensor, style: Style | None, prompt: str) -> np.ndarray:
    """The score of every photo (1-d) in a style; None is no style, the base translator alone."""
    plain = find_style(bundle, "van-gogh") if style is None else style
    painted = torch.cat([stylize(image, plain, bundle, strength=float(style is not None)) for image in images.split(1)])
    return score_pictures(bundle.clip, painted, prompt).numpy()


def made(bundle: Bundle, prompt: str) -> Style:
    """The network's style for a prompt, even where the bundle has a tuned style for it."""
    return find_style(Bundle(**{**vars(bundle), "style_paths": ()}), prompt)


def interval(values: np.ndarray, rounds: int = 2000) -> tuple[float, float, float]:
    """(mean, low, high) of values (prompts, photos), with a 95 % interval by bootstrap over both."""
    rng = np.random.default_rng(0)
    p, n = values.shape
    means = [values[rng.integers(p, size=p)][:, rng.integers(n, size=n)].mean() for _ in range(rounds)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def score(args: argparse.Namespace, bundle: Bundle) -> None:
    images = photos(args.heldout, 256, args.photos)
    prompts = read_prompts(args.prompts)
    seen = [p.text for p in prompts if not p.held_out]
    seen = [seen[i] for i in np.random.default_rng(0).permutation(len(seen))[:SEEN]]
    unseen = [p.text for p in prompts if p.held_out]
    own = list_styles(bundle)
    base = torch.cat([stylize(i, own[0], bundle, strength=0.0) for i in images.split(1)])

    def alone(texts: list[str]) -> np.ndarray:
        return np.stack([score_pictures(bundle.clip, base, text).numpy() for text in texts])

    def network(texts: list[str]) -> np.ndarray:
        return np.stack([scores(bundle, images, made(bundle, text), text) for text in texts])

    named = [style.prompt for style in own]
    rows = {
        f"{len(named)} named styles, tuned": np.stack([scores(bundle, images, style, style.prompt) for style in own]),
        f"{len(named)} named styles, network": network(named),
        f"{len(named)} named styles, no conditioning": alone(named),
        f"{len(seen)} prompts trained on, network": network(seen),
        f"{len(seen)} prompts trained on, no conditioning": alone(seen),
        f"{len(unseen)} held-out prompts, network": network(unseen),
        f"{len(unseen)} held-out prompts, no conditioning": alone(unseen),
    }
    print(f"| prompts, {len(images)} held-out photos | mean score | 95 % interval |\n|---|---|---|")
    for name, values in rows.items():
        mean, low, high = interval(values)
        print(f"| {name} | {mean:.3f} | {low:.3f} to {high:.3f} |")
    tuned, by_network, _, *_ = rows.values()
    print("\n| named style | tuned | network | share |\n|---|---|---|---|")
    for style, a, b in zip(own, tuned.mean(1), by_network.mean(1), strict=True):
        print(f"| {style.name} | {a:.3f} | {b:.3f} | {b / a:.2f} |")
    print("\n| held-out prompt | network | no conditioning |\n|---|---|---|")
    *_, unseen_network, unseen_alone = rows.values()
    for text, a, b in zip(unseen, unseen_network.mean(1), unseen_alone.mean(1), strict=True):
        print(f"| {text} | {a:.3f} | {b:.3f} |")


def speed(args: argparse.Namespace, bundle: Bundle) -> None:
    image = torch.rand(1, 3, args.size, args.size)
    tuned, prompt = list_styles(bundle)[0], "a mosaic of small tiles"
    seconds: dict[str, list[float]] = {"tuned style": [], "network": []}
    for i in range(args.repeat + 1):
        for name, style in (
            ("tuned style", tuned.prompt),
            ("network", prompt),
        ):  # in turns: both see the same load
            started = time.perf_counter()
            stylize(image, style, bundle)
            if i:
                seconds[name].append(time.perf_counter() - started)
    a, b = (statistics.median(values) for values in seconds.values())
    print(f"{args.size} px, warm, median of {args.repeat}: tuned style {a:.3f} s, any prompt {b:.3f} s, {b / a:.2f} times")


def draw(args: argparse.Namespace, bundle: Bundle) -> None:
    found = {p.key: p for p in read_pictures(args.heldout) if p.kind == "photo"}
    chosen = [found[key] for key in KEYS if key in found] or list(found.values())[:3]
    images = [to_tensor([np.asarray(centre_crop(p.open(), args.size))]) for p in chosen]
    pictures = [to_image(image[0]) for image in images]
    labels = ["the photos", "", ""]
    for p in read_prompts(args.prompts):
        if p.held_out:
            print(p.text, flush=True)
            pictures += [to_image(stylize(image, made(bundle, p.text), bundle)[0]) for image in images]
            labels += [p.text, "", ""]
    save(sheet(pictures, labels, 9, args.shown), args.output)


def strip(args: argparse.Namespace, bundle: Bundle) -> None:
    image = over_white(*read_picture(args.photo))
    first, second = args.style
    pictures, labels = [], []
    for i in range(args.steps):
        share = i / (args.steps - 1)
        text = f"{first}:{1 - share:.2f}, {second}:{share:.2f}"
        pictures.append(to_image(stylize(image, text, bundle)[0]))
        labels.append(f"{1 - share:.2f} / {share:.2f}")
    save(sheet(pictures, labels, height=args.shown), args.output)


def save(page: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=74, optimize=True, progressive=True)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "speed", "sheet", "strip"))
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--heldout", nargs="+")
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--shown", type=int, default=200)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--style", action="append")
    args = parser.parse_args()
    if args.what in ("score", "sheet") and not args.heldout:
        parser.error(f"{args.what} needs --heldout")
    if args.what in ("sheet", "strip") and not args.output:
        parser.error(f"{args.what} needs --output")
    if args.what == "strip" and not (args.photo and args.style and len(args.style) == 2):
        parser.error("strip needs a photo and two --style")
    bundle = load_bundle(args.bundle)
    {"score": score, "speed": speed, "sheet": draw, "strip": strip}[args.what](args, bundle)


if __name__ == "__main__":
    main()
