"""Contact sheets: pictures side by side with a label under each.

Example:

    python -m stylerdalle.images.sheet sheet.jpg photo.jpg van-gogh.png ukiyo-e.png --labels "the photo" "Van Gogh" "ukiyo-e"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .files import check_output, over_white, read_picture, to_image, write_picture

GAP = 12  # px around pictures
LINE = 28  # px of a label


def sheet(images: Sequence[Image.Image], labels: Sequence[str], columns: int | None = None, height: int = 512) -> Image.Image:
    """A page of pictures with a label under each.

    Args:
        columns: pictures a row; by default all are in one row.
        height: of each picture in px.

    Raises:
        ValueError: no pictures, or not one label for each.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} pictures and {len(labels)} labels: give at least one picture and a label for each")
    scaled = [image.convert("RGB").resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    count = columns or len(images)
    rows = [list(zip(scaled[i : i + count], labels[i : i + count], strict=True)) for i in range(0, len(images), count)]
    width = max(sum(image.width + GAP for image, _ in row) for row in rows) + GAP
    page = Image.new("RGB", (width, len(rows) * (height + LINE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for r, row in enumerate(rows):
        x, y = GAP, GAP + r * (height + LINE + GAP)
        for image, label in row:
            page.paste(image, (x, y))
            draw.text((x, y + height + 6), label, fill="black", font=_font())
            x += image.width + GAP
    return page


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(16)
    except (TypeError, ImportError):  # Pillow before 10.1, or built without FreeType
        return ImageFont.load_default()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stylerdalle.images.sheet", description="Pictures side by side with labels.")
    parser.add_argument("output", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--labels", nargs="+", help="one for each picture (default: the files' names)")
    parser.add_argument("--columns", type=int, help="pictures a row (default: all)")
    parser.add_argument("--height", type=int, default=512, help="of the pictures, px")
    args = parser.parse_args(argv)
    try:
        check_output(args.output, True, inputs=args.images)
        images = [to_image(over_white(*read_picture(path))) for path in args.images]
        page = sheet(images, args.labels or [path.stem for path in args.images], args.columns, args.height)
        write_picture(args.output, torch.from_numpy(np.array(page)).permute(2, 0, 1).float() / 255, overwrite=True)
    except ValueError as error:
        print(f"sheet: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
