"""A sheet of what a teacher paints: a row for each photo, a column for each style."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..checkpoint import load_tokenizer
from ..device import choose_dtype
from ..images.files import to_image
from ..learn.crops import centre_crop, to_tensor
from ..learn.pictures import Picture
from .teacher_network import load_teacher, paint
from .teacher_styles import without_cast

LABEL = 16  # px above a column


@torch.inference_mode()
def painted_rows(
    teacher_path: Path, pictures: Sequence[Picture], tokenizer_path: Path, side: int, coded: bool
) -> tuple[tuple[str, ...], list[list[Tensor]]]:
    """(styles, for every photo: its decoded tokens, then the same in every style), each (1, 3, side, side); `coded` sends the
    painted pictures through the tokenizer."""
    teacher, tokenizer = load_teacher(teacher_path), load_tokenizer(tokenizer_path, dtype=choose_dtype(torch.device("cpu")))
    rows = []
    for number, picture in enumerate(pictures):
        photo = to_tensor([np.asarray(centre_crop(picture.open(), side))])
        decoded = tokenizer.decode(tokenizer.encode(photo)).float()
        made = [without_cast(paint(teacher, decoded, [name], seed=number), [name]) for name in teacher.names]
        rows.append([decoded, *(tokenizer.decode(tokenizer.encode(each)).float() if coded else each for each in made)])
    return teacher.names, rows


def paint_sheet(
    path: Path,
    teacher: Path,
    pictures: Sequence[Picture],
    tokenizer: Path,
    side: int = 256,
    columns: int = 10,
    shown: int = 0,
    coded: bool = False,
) -> None:
    """Write the sheet; styles are broken into bands of `columns`, each with the photos in front.

    Args:
        side: px of the pictures that are painted, a multiple of 8.
        shown: px of a picture on the sheet; 0 for `side`.
        coded: show painted pictures after the tokenizer, as the translator will learn them.

    Raises:
        ValueError: no pictures, or a file that is no teacher.
    """
    if not pictures:
        raise ValueError("a sheet needs photos: give some with --images")
    names, rows = painted_rows(teacher, pictures, tokenizer, side, coded)
    shown = shown or side
    bands = [range(i, min(i + columns, len(names))) for i in range(0, len(names), columns)]
    band_height = LABEL + len(rows) * shown
    page = Image.new("RGB", ((1 + columns) * shown, len(bands) * band_height), "white")
    draw = ImageDraw.Draw(page)
    for b, band in enumerate(bands):
        for column, cell in enumerate([0, *(i + 1 for i in band)]):
            draw.text((column * shown + 3, b * band_height + 2), "photo" if cell == 0 else names[cell - 1], fill="black")
            for r, row in enumerate(rows):
                tile = to_image(row[cell]).resize((shown, shown), Image.Resampling.LANCZOS)
                page.paste(tile, (column * shown, b * band_height + LABEL + r * shown))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=88)
