"""The one reader of pictures, for every command and every training: a file's bytes to upright pixels in sRGB, and alpha.

The content decides the format, from a list (kinds.py). 16-bit, float, grey, palette, CMYK, Lab, transparent, animated and
wrongly tagged pictures are read; what cannot be read is named in one sentence.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..settings import shortened
from .kinds import formats, what_it_is
from .png import PNG, SIGNATURE, read_png
from .spaces import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    PRIMARIES,
    TRANSFERS,
    from_gamma,
    from_lab,
    from_profile,
    from_space,
    linear_to_srgb,
    power,
)

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
MIN_SIDE = 2
LIMIT = f"at most {MAX_PIXELS // 10**6} megapixels are read, make it smaller first"
EXIF_HEADER = b"Exif\0\0"
HEAD = 65_536  # bytes that tell what a file is
# what Pillow's readers raise on damaged files
READ_ERRORS = (
    *(OSError, SyntaxError, EOFError, ArithmeticError, LookupError, AttributeError, TypeError, ValueError, RuntimeError),
    *(struct.error, zlib.error),
)
ORIENTATION, EXIF_IFD, INTEROP_IFD, COLOUR_SPACE, INTEROP_INDEX = 0x0112, 0x8769, 0xA005, 0xA001, 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_opening = threading.Lock()  # `warnings` are those of the whole process
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning, r"PIL\.")  # of TIFFs while they are decoded: remarked here


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: upright, in sRGB."""

    pixels: np.ndarray  # (H, W, 3) uint8; or (H, W) float32 in [0, 1], grey pictures of more than 8 bits
    alpha: np.ndarray | None  # (H, W) uint8; None: opaque
    remarks: tuple[str, ...]  # what was wrong with the file, or was left out

    def over_white(self) -> Image.Image:
        """As 8-bit RGB, transparent parts white."""
        if self.pixels.ndim == 2:
            image = Image.fromarray((255 * self.pixels).round().astype(np.uint8)).convert("RGB")
        else:
            image = Image.fromarray(self.pixels)
        if self.alpha is None:
            return image
        image.putalpha(Image.fromarray(self.alpha))
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def decode(source: Path | bytes, name: str) -> Decoded:
    """Decode a picture file, or its bytes.

    Args:
        name: of the picture, for messages.

    Raises:
        ValueError: it cannot be read; one sentence for the user.
    """
    with opened(source, name) as (image, png, remarks):
        exif = _load(image, name, remarks)
    if (turn := TURNS.get(exif.get(ORIENTATION, 1))) is not None:
        image = image.transpose(turn)
    pixels, alpha = _pixels(image, exif, png, name, remarks.append)
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return Decoded(pixels, alpha, tuple(remarks))


def damaged(name: str, error: Exception) -> ValueError:
    """An error for a file whose content cannot be decoded."""
    return ValueError(f"{name} is damaged or cut off ({shortened(error, 200)}): copy or save it again")


def check_size(name: str, width: int, height: int) -> None:
    """Raises ValueError if a picture has too few or too many pixels."""
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{name} is {width} x {height} px: both sides need {MIN_SIDE} px or more, give a larger picture")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} is {width} x {height} px: {LIMIT}")


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Pillow's warnings as a list, not on the screen."""
    with _opening, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard


@contextlib.contextmanager
def opened(source: Path | bytes, name: str) -> Iterator[tuple[Image.Image, PNG | None, list[str]]]:
    """Open a picture file, or its bytes, without decoding it -> (the image, the parts of a PNG, remarks). As `decode` otherwise.

    Nothing else opens pictures: what one reader takes for damaged, another must not read.
    """
    try:
        stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except PermissionError as error:
        raise ValueError(f"{name} cannot be read: you have no permission for it") from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror or error}): check the path") from error
    with stream:
        try:
            head = stream.read(HEAD)
            png = read_png(head + stream.read()) if head.startswith(SIGNATURE) else None
            stream.seek(0)
        except READ_ERRORS as error:
            raise damaged(name, error) from error
        if not head:
            raise ValueError(f"{name} is empty: copy or save it again")
        image, remarks = _open(io.BytesIO(png.data) if png else stream, name, head)
        yield image, png, remarks


def _open(stream: Any, name: str, head: bytes) -> tuple[Image.Image, list[str]]:
    """(the image, remarks)."""
    try:
        with _quiet() as heard:
            image = Image.open(stream, formats=formats())
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} {what_it_is(head)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large: {LIMIT}") from error
    except READ_ERRORS as error:
        raise damaged(name, error) from error
    check_size(name, *image.size)
    # a warning of many pixels is left out: the limit is ours
    odd = [str(one.message) for one in heard if issubclass(one.category, UserWarning)]
    return image, [f"its EXIF data is damaged ({odd[0]})"] if odd else []


def _load(image: Image.Image, name: str, remarks: list[str]) -> dict[int, Any]:
    """Decode an open image -> its EXIF data. What is wrong is added to the remarks."""
    try:
        frames = getattr(image, "n_frames", 1)
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large: {LIMIT}") from error
    except READ_ERRORS as error:
        raise damaged(name, error) from error
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview or a second view
        remarks.append(f"it has {frames} frames or pages: the first is taken")
    found: dict[int, Any] = {}
    data = image.info.get("exif", b"")
    if twice := data.startswith(2 * EXIF_HEADER):
        remarks.append("its EXIF data has its header twice")
        while data.startswith(2 * EXIF_HEADER):
            data = data.removeprefix(EXIF_HEADER)
    try:
        with _quiet() as heard:
            exif = Image.Exif() if twice else image.getexif()
            if twice:
                exif.load(data)  # versions of Pillow before 11 do not read it otherwise
            found = dict(exif)
            found |= dict(exif.get_ifd(EXIF_IFD))
            with contextlib.suppress(KeyError):  # which older versions of Pillow raise for a part that is not there
                found[INTEROP_IFD] = dict(exif.get_ifd(INTEROP_IFD))
        if heard and not remarks:
            remarks.append(f"its EXIF data is damaged ({heard[0].message})")
    except READ_ERRORS as error:
        remarks.append(f"its EXIF data is damaged ({error})")
    remarks[:] = [shortened(remark, 300) for remark in remarks]
    return found


def _pixels(
    image: Image.Image, exif: dict[int, Any], png: PNG | None, name: str, remark: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels, alpha) of an image of any mode, as of `Decoded`."""
    image, alpha = _split_alpha(image)
    profile: bytes = (png.profile if png else image.info.get("icc_profile")) or b""
    gamma = png.gamma if png and 0.1 < png.gamma < 10 and abs(png.gamma - 1 / 2.2) > 0.01 else 0.0
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = _unit_range(name, image)
        if not profile:
            return (linear_to_srgb(values ** (1 / gamma)).astype(np.float32) if gamma else values), alpha
        image = Image.fromarray((255 * values).round().astype(np.uint8))
    if image.mode not in ("RGB", "CMYK", "L", "LAB"):
        try:
            image = image.convert("L" if image.mode == "1" else "RGB")
        except ValueError as error:
            raise ValueError(f"{name} is in the colour mode {image.mode}, which cannot be read: save it as RGB") from error
    cicp = png.cicp if png else b""
    adobe = exif.get(INTEROP_IFD, {}).get(INTEROP_INDEX) == "R03" or exif.get(COLOUR_SPACE) == 2
    try:
        if image.mode == "LAB":
            image = from_lab(image)
        elif len(cicp) == 4:
            if cicp[0] not in PRIMARIES or cicp[1] not in TRANSFERS:
                raise ValueError(f"cICP {cicp[0]}, {cicp[1]}")
            if tuple(cicp[:2]) != (1, 13):
                image = from_space(image.convert("RGB"), PRIMARIES[cicp[0]], TRANSFERS[cicp[1]])
        elif profile:
            image = from_profile(image, profile)
        elif gamma:
            image = from_gamma(image, gamma)
        elif adobe and image.mode == "RGB":
            image = from_space(image, ADOBE_RGB, power(ADOBE_GAMMA))
    except ValueError as error:
        remark(f"its colour profile cannot be used ({error}), colours are taken as sRGB")
    if image.mode == "LAB":
        raise ValueError(f"{name} is in the colour mode LAB, which this Pillow cannot read: save it as RGB")
    return np.array(image.convert("RGB")), alpha


def _split_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """(the image without alpha, in a mode that keeps its colours; its alpha (H, W) uint8 or None)."""
    clear = image.info.get("transparency")
    if (clear is not None and image.mode in ("1", "I")) or (clear is not None and image.mode.startswith("I;16")):
        return image, 255 * (np.asarray(image) != clear).astype(np.uint8)
    if isinstance(clear, tuple) and max(clear) > 255:  # of a PNG with 16 bits a channel, which Pillow reads as 8
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode in ("La", "RGBa", "PA") or clear is not None:
        image = image.convert({"L": "LA", "La": "LA"}.get(image.mode, "RGBA"))
    if image.mode not in ("LA", "RGBA"):
        return image, None
    opaque = image.convert(image.mode.removesuffix("A") if image.mode == "LA" else "RGB")
    opaque.info = image.info
    return opaque, np.array(image.getchannel("A"))


def _unit_range(name: str, image: Image.Image) -> np.ndarray:
    """12-bit, 16-bit, 32-bit and float grey images -> float32 (H, W) in [0, 1]."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.max() > 1 or values.min() < 0:
            raise ValueError(f"{name} holds float values outside 0 to 1: save it with 8 or 16 bits a channel")
    else:
        deep = image.mode == "I" and values.max() > 65_535
        bits = (tags.get(258) or (16,))[0]
        values = (values / (2**31 - 1 if deep else 4095 if bits == 12 else 65_535)).clip(0, 1)
    return 1 - values if tags.get(262) == 0 else values  # 0: white is zero
