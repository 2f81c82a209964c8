"""Picture files to tensors and back."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..storage import replacing, same_file
from .alpha import over_white, resized_with_alpha
from .decode import MAX_PIXELS, decode
from .notes import Notes
from .resample import interpolated

__all__ = ["SUFFIXES", "check_output", "over_white", "read_picture", "resized", "to_image", "write_picture"]
MAX_NAME = 255  # bytes of a file name, the limit of most file systems
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # that are written
MAX_SIDES = {"JPEG": 65_500, "WEBP": 16_383}  # px; the limits of these formats
log = logging.getLogger(__name__)


def read_picture(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read one picture file, turned upright, in sRGB.

    Returns:
        float32 (1, 3, H, W) in [0, 1], and its alpha (1, 1, H, W) in [0, 1] or None where it is opaque.

    Raises:
        ValueError: missing, not a picture, damaged, too small or too large; one sentence for the user.
    """
    path = Path(path)
    check_file(path)
    decoded = decode(path, str(path))
    for remark in decoded.remarks:
        log.warning("%s: %s", path, remark)
    pixels, alpha = torch.from_numpy(decoded.pixels), decoded.alpha
    if pixels.ndim == 2:
        images = pixels.expand(1, 3, -1, -1).contiguous()
    else:
        images = pixels.permute(2, 0, 1)[None].contiguous().float().div_(255)  # (1, 3, H, W)
    return images, None if alpha is None else torch.from_numpy(alpha)[None, None].float().div_(255)


def check_file(path: Path) -> None:
    """Raises ValueError unless the path is of a file that is there."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        what = "is a link to a file that is not there" if path.is_symlink() else "does not exist"
        raise ValueError(f"{path} {what}: check the path") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is a folder: give the pictures in it")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a file: give a picture file")


def resized(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) in [0, 1], C 3 or 4 with alpha -> (B, C, h, w), the shortest side `side` px (bicubic, antialiased).

    Raises:
        ValueError: the result would be larger than MAX_PIXELS.
    """
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"a {width} x {height} px picture with its shortest side at {side} px is {size[1]} x {size[0]} px: "
            f"at most {MAX_PIXELS // 10**6} megapixels are made, choose a smaller size"
        )
    if size == (height, width):
        return images
    if images.shape[1] == 4:  # hidden colours get no weight
        return resized_with_alpha(images, size)
    return interpolated(images, size).clamp(0, 1)


def check_output(
    path: str | Path, overwrite: bool = False, suffixes: tuple[str, ...] = SUFFIXES, inputs: Iterable[str | Path] = ()
) -> Path:
    """The path, if a file may be written there: call it before long work begins.

    Args:
        inputs: files that the command reads, which the output must not replace.

    Raises:
        ValueError: another suffix, a folder, one of the inputs, an existing file without `overwrite`, a name that is too long, or
            no permission to write.
    """
    path = Path(path)
    if (length := max(len(os.fsencode(part)) for part in (path.name, *path.parts))) > MAX_NAME:
        raise ValueError(f"{path.name[:40]}... is a name of {length} bytes, file systems allow {MAX_NAME}: choose a shorter one")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file's name ({', '.join(suffixes)})")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} has the suffix {path.suffix!r}: use {', '.join(suffixes)}")
    if taken := same_file(path, inputs):
        raise ValueError(f"{path} is one of the inputs ({taken}), which would be lost: choose another output")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already: use --overwrite (overwrite=True) or another name")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"{path} cannot be written: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: you have no permission to write in {folder}, choose another place")
    return path


def write_picture(path: str | Path, images: Tensor, overwrite: bool = False, notes: Notes | None = None) -> Path:
    """Write one picture file. It is never half-written (storage.replacing).

    PNG and WebP keep the alpha; JPEG has none, transparent parts become white.

    Args:
        path: the suffix chooses the format.
        images: (1, C, H, W) or (C, H, W) in [0, 1]; C is 3, or 4 with alpha.
        overwrite: replace an existing file.
        notes: of the photo, kept in the file.

    Raises:
        ValueError: the picture or the place cannot be written; one sentence for the user.
    """
    path = check_output(path, overwrite)
    image = to_image(images)
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
    if max(image.size) > MAX_SIDES.get(kind, max(image.size)):
        raise ValueError(f"{path}: {kind} has at most {MAX_SIDES[kind]} px a side, not {image.width} x {image.height}: use .png")
    if kind == "JPEG" and image.mode == "RGBA":
        log.warning("%s: JPEG has no transparency, transparent parts become white; use .png or .webp to keep them", path)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    options: dict[str, Any] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}, "PNG": {}}[kind]
    if notes and notes.exif:
        options["exif"] = notes.exif
    if notes and notes.dpi and kind != "WEBP":  # WebP has it in the EXIF data
        options["dpi"] = notes.dpi
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            image.save(stream, kind, **options)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error}): choose another place") from error
    return path


def to_image(images: Tensor) -> Image.Image:
    """(1, C, H, W) or (C, H, W) in [0, 1], C 3 or 4 -> an 8-bit RGB or RGBA image."""
    single = images[0] if images.ndim == 4 and len(images) == 1 else images
    if single.ndim != 3 or single.shape[0] not in (3, 4):
        raise ValueError(f"a picture of shape {tuple(images.shape)} cannot be written: need (1, 3 or 4, H, W)")
    values = single.detach().float().clamp(0, 1).mul_(255).round_().byte().permute(1, 2, 0)  # (H, W, C)
    return Image.fromarray(np.ascontiguousarray(values.cpu().numpy()))
