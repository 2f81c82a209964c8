"""Write WebDataset tar shards: photos packed at one size, or made pairs (photo, filtered photo).

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
from .registry import FILTERED, STYLES, Recipe


def short_side(image: Image.Image, side: int) -> Image.Image:
    """The picture with its shortest side at most `side` px (Lanczos)."""
    scale = min(1.0, side / min(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def pack(pictures: Iterable[Picture], side: int, kind: str) -> Iterable[tuple[str, dict[str, bytes]]]:
    """Photos as samples: KEY.webp with a shortest side of at most `side` px, KEY.json with their kind and file."""
    for i, picture in enumerate(pictures):
        image = short_side(picture.open(), side)
        note = {"kind": kind, "style": "photo", "file": picture.key}
        yield f"{kind}-{i:05d}", {"webp": encoded(image), "json": json.dumps(note).encode()}


def pairs(pictures: list[Picture], count: int, side: int, seed: int = 0) -> Iterable[tuple[str, dict[str, bytes]]]:
    """Made pairs of every style, as samples: KEY.webp is the filtered square, KEY.photo.webp the photo's, KEY.json the rest.

    Half of the photos come from the large ones (all but Caltech 101), half from all of them.

    Args:
        count: pairs of each style.
        side: px of the squares.
    """
    photos = [p for p in pictures if p.kind in ("photo", "wallpaper")]
    large = [p for p in photos if p.source != "caltech101"]
    for recipe in sorted((STYLES[name] for name in FILTERED), key=lambda recipe: recipe.stream):
        rng = np.random.default_rng([seed, recipe.stream])
        for i in range(count):
            pool = large if i % 2 and large else photos
            picture = pool[rng.integers(len(pool))]
            square = random_square(picture.open(), side, rng)
            made = Image.fromarray(recipe.apply(np.asarray(square), rng))
            yield (
                f"{recipe.key}-{i:05d}",
                {
                    "webp": encoded(made, lossless=recipe.name.startswith("pixel-art")),
                    "photo.webp": encoded(square),
                    "json": json.dumps(pair_note(recipe, picture.content)).encode(),
                },
            )


def random_square(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A random square of 0.6 to 1 of the shortest side, at `side` px."""
    width, height = image.size
    part = min(width, height) * rng.uniform(0.6, 1.0)
    x, y = rng.uniform(0, width - part), rng.uniform(0, height - part)
    return image.resize((side, side), Image.Resampling.LANCZOS, box=(x, y, x + part, y + part))


def pair_note(recipe: Recipe, content: str) -> dict[str, str | list[str]]:
    """What the shard's JSON says of a filtered photo; `content` is what the photo shows, where that is known."""
    prompts = recipe.prompts
    captions = [f"{prompt} of {content}" for prompt in prompts[:2]] if content else list(prompts)
    return {"kind": "made", "style": prompts[0], "content": content, "caption": captions, "filter": recipe.key}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "pairs"), help="pack: photos at one size; pairs: made pairs of every style")
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--side", type=int, required=True, help="px: pack, of the shortest side, at most; pairs, of the squares")
    parser.add_argument("--kind", default="wallpaper", help="pack: kind written for each photo (default: wallpaper)")
    parser.add_argument("--count", type=int, default=200, help="pairs: how many of each style (default: 200)")
    parser.add_argument("--output", type=Path, required=True, help="the tar file to write")
    args = parser.parse_args()
    pictures = read_pictures(args.images)
    samples = pack(pictures, args.side, args.kind) if args.what == "pack" else pairs(pictures, args.count, args.side)
    print(f"{args.output}: {write_shard(args.output, samples)} samples")


if __name__ == "__main__":
    main()
