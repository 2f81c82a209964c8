"""Picture files to tensors and back: also rotated, CMYK, 16-bit, palette, animated and transparent ones."""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..storage import replacing, same_file

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
MIN_SIDE = 2
MAX_NAME = 255  # bytes of a file name, the limit of most file systems
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF")  # none that runs programs
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # that are written
MAX_SIDES = {"JPEG": 65_500, "WEBP": 16_383}  # px; the limits of these formats
LIMIT = f"at most {MAX_PIXELS // 10**6} megapixels are read, make it smaller first"
# what Pillow's readers raise on damaged files
READ_ERRORS = (OSError, SyntaxError, EOFError, ValueError, IndexError, TypeError, KeyError, struct.error, zlib.error)
log = logging.getLogger(__name__)


def read_picture(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read one picture file, turned upright, in sRGB.

    Returns:
        float32 (1, 3, H, W) in [0, 1], and its alpha (1, 1, H, W) in [0, 1] or None where it is opaque.

    Raises:
        ValueError: missing, not a picture, damaged, too small or too large; one sentence for the user.
    """
    path = Path(path)
    _check_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours
        try:
            image = Image.open(path, formats=_formats())
        except UnidentifiedImageError as error:
            raise ValueError(
                f"{path} is not a picture that can be read: give a PNG, JPEG, WebP, TIFF or GIF file (HEIC: save as JPEG)"
            ) from error
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} is too large: {LIMIT}") from error
        except PermissionError as error:
            raise ValueError(f"{path} cannot be read: you have no permission for it") from error
        except READ_ERRORS as error:
            raise _damaged(path, error) from error
    with image:
        _check_size(path, *image.size)
        try:
            frames = getattr(image, "n_frames", 1)
            image.load()
        except READ_ERRORS as error:
            raise _damaged(path, error) from error
        if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview or a second eye
            log.warning("%s has %d frames or pages: the first is taken", path, frames)
        return _to_tensors(path, _upright(path, image))


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the pictures in it")
    if not path.exists():
        raise ValueError(f"{path} does not exist: check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: copy or save it again")


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{path} is {width} x {height} px: both sides need {MIN_SIDE} px or more, give a larger picture")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{path} is {width} x {height} px: {LIMIT}")


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or cut off ({error}): copy or save it again")


def _upright(path: Path, image: Image.Image) -> Image.Image:
    """The image, rotated as its EXIF data says."""
    try:
        return ImageOps.exif_transpose(image)
    except READ_ERRORS as error:
        log.warning("%s: its EXIF data is damaged (%s), it is not turned", path, error)
        return image.copy()


def _to_tensors(path: Path, image: Image.Image) -> tuple[Tensor, Tensor | None]:
    """An opened image of any mode -> (1, 3, H, W) and alpha (1, 1, H, W) or None, as read_picture."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = torch.from_numpy(_unit_range(path, image)).clamp(0, 1)
        return grey.expand(1, 3, -1, -1).contiguous(), None
    if image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if image.mode not in ("RGB", "CMYK", "L"):
        try:
            image = image.convert("L" if image.mode == "1" else "RGB")
        except ValueError as error:
            raise ValueError(f"{path} is in the colour mode {image.mode}, which cannot be read: save it as RGB") from error
    if profile:
        image = _to_srgb(path, image, profile)
    rgb = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].contiguous().float().div_(255)  # (1, 3, H, W)
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb, None
    return rgb, torch.from_numpy(np.array(alpha))[None, None].float().div_(255)


def _unit_range(path: Path, image: Image.Image) -> np.ndarray:
    """16-bit, 32-bit and float grey images -> float32 (H, W) in [0, 1]."""
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.max() > 1 or values.min() < 0:
            raise ValueError(f"{path} holds float values outside 0 to 1: save it with 8 or 16 bits a channel")
        return values
    deep = image.mode == "I" and values.max() > 65_535
    return values / (2**31 - 1 if deep else 65_535)


def _to_srgb(path: Path, image: Image.Image, profile: bytes) -> Image.Image:
    """The image converted from its colour profile to sRGB, or unchanged, with a warning, if that is not possible."""
    try:
        from PIL import ImageCms
    except ImportError:  # a Pillow without LittleCMS
        log.warning("%s: its colour profile cannot be used by this Pillow, colours are taken as sRGB", path)
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return image if converted is None else converted
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.warning("%s: its colour profile cannot be used (%s), colours are taken as sRGB", path, error)
        return image


def over_white(images: Tensor, alpha: Tensor | None) -> Tensor:
    """(B, 3, H, W) and alpha (B, 1, H, W) or None -> (B, 3, H, W), the pictures on a white background."""
    return images if alpha is None else images * alpha + (1 - alpha)


def resized(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, h, w), the shortest side `side` px (bicubic, antialiased).

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
    return torch.nn.functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


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


def write_picture(path: str | Path, images: Tensor, overwrite: bool = False) -> Path:
    """Write one picture file. It is never half-written (storage.replacing).

    PNG and WebP keep the alpha; JPEG has none, transparent parts become white.

    Args:
        path: the suffix chooses the format.
        images: (1, C, H, W) or (C, H, W) in [0, 1]; C is 3, or 4 with alpha.
        overwrite: replace an existing file.

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
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}, "PNG": {}}[kind]
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
