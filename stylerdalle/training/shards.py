"""Write pictures as WebDataset tar shards: photos packed at one size, and made pairs (photo, filtered photo).

Example:

    python -m stylerdalle.training.shards pack  --images DIR --side 720 --kind wallpaper --output wallpapers.tar
    python -m stylerdalle.training.shards pairs --images SHARDS --count 200 --side 256 --output pairs.tar
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..learn.pictures import Picture
from ..learn.shards import encoded, write_shard
from ..learn.sources import read_pictures
from .filters import FILTERS, PROMPTS, apply


def short_side(image: Image.Image, side: int) -> Image.Image:
    """The picture with its shortest side at most `side` px (Lanczos)."""
    scale = min(1.0, side / min(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def pack(pictures: Iterable[Picture], side: int, kind: str) -> Iterable[tuple[str, dict[str, bytes]]]:
    for i, picture in enumerate(pictures):
        image = short_side(picture.open(), side)
        note = {"kind": kind, "style": "photo", "file": picture.key}
        yield f"{kind}-{i:05d}", {"webp": encoded(image), "json": json.dumps(note).encode()}


def pairs(pictures: list[Picture], count: int, side: int, seed: int = 0) -> Iterable[tuple[str, dict[str, bytes]]]:
    """`count` photos through every filter: KEY.webp is the filtered square, KEY.photo.webp its source.

    Half of the photos come from the large ones (wallpapers, landscapes), half from the rest.
    """
    photos = [p for p in pictures if p.kind in ("photo", "wallpaper")]
    large = [p for p in photos if p.source != "caltech101"]
    for n, name in enumerate(FILTERS):
        rng = np.random.default_rng([seed, n])
        for i in range(count):
            pool = large if i % 2 and large else photos
            picture = pool[rng.integers(len(pool))]
            image = picture.open()
            width, height = image.size
            part = min(width, height) * rng.uniform(0.6, 1.0)
            x, y = rng.uniform(0, width - part), rng.uniform(0, height - part)
            square = image.resize((side, side), Image.Resampling.LANCZOS, box=(x, y, x + part, y + part))
            made = Image.fromarray(apply(name, np.asarray(square), rng))
            prompts = PROMPTS[name]
            captions = [f"{prompt} of {picture.content}" for prompt in prompts[:2]] if picture.content else list(prompts)
            note = {"kind": "made", "style": prompts[0], "content": picture.content, "caption": captions, "filter": name}
            yield (
                f"{name}-{i:05d}",
                {
                    "webp": encoded(made, lossless=name.startswith("pixel_art")),
                    "photo.webp": encoded(square),
                    "json": json.dumps(note).encode(),
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "pairs"))
    parser.add_argument("--images", nargs="+", required=True)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--kind", default="wallpaper")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    pictures = read_pictures(args.images)
    samples = pack(pictures, args.side, args.kind) if args.what == "pack" else pairs(pictures, args.count, args.side)
    print(f"{args.output}: {write_shard(args.output, samples)} samples")


if __name__ == "__main__":
    main()
