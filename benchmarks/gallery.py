"""Draws docs/styles.jpg: every bundled style on the same photos.

Usage:

    python benchmarks/gallery.py PHOTO PHOTO PHOTO PHOTO --output docs/styles.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from stylerdalle import load_bundle
from stylerdalle.images.files import over_white, read_picture, to_image
from stylerdalle.images.sheet import sheet
from stylerdalle.learn.crops import centre_crop, to_tensor
from stylerdalle.pipeline import stylize
from stylerdalle.resolve import list_styles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--styles", nargs="*", help="names of styles (default: all of the bundle)")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--size", type=int, default=512, help="side of the square that is stylised, px")
    parser.add_argument("--shown", type=int, default=256, help="side of a picture on the sheet, px")
    parser.add_argument("--columns", type=int, default=2, help="styles side by side")
    args = parser.parse_args()

    bundle = load_bundle(args.bundle)
    photos = [centre_crop(to_image(over_white(*read_picture(path))), args.size) for path in args.photos]
    strips, labels = [strip(photos, args.shown)], ["the photos"]
    for style in list_styles(bundle):
        if args.styles and style.name not in args.styles:
            continue
        painted = [stylize(to_tensor([np.asarray(photo)]), style, bundle) for photo in photos]
        strips.append(strip([to_image(picture) for picture in painted], args.shown))
        labels.append(style.prompt)
        print(style.name, flush=True)
    page = sheet(strips, labels, args.columns, args.shown)
    page.save(args.output, quality=74, optimize=True, progressive=True)


def strip(pictures: list[Image.Image], side: int) -> Image.Image:
    """Square pictures side by side, `side` px each."""
    whole = Image.new("RGB", (side * len(pictures), side))
    for i, picture in enumerate(pictures):
        whole.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (i * side, 0))
    return whole


if __name__ == "__main__":
    main()
