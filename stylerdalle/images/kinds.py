"""Which files are read as pictures, and what the others are: for one sentence that says what to do with them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from PIL import Image

# Pillow's names of the formats that are read. No reader among them starts another program, as Pillow's for EPS does.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF")
# suffixes of files that count as pictures in folders and shards; the content decides how they are read
PHOTO_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"),
    *(".jp2", ".mpo", ".ppm", ".pgm", ".tga"),
)
READABLE = "give a PNG, JPEG, WebP, TIFF, AVIF or GIF file"
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# what a file is by its first bytes
STARTS = (
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"gimp xcf", "a GIMP file"),
)
TIFF_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of the numbers in a TIFF, by their type


def formats() -> list[str]:
    """Those of FORMATS that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def what_it_is(head: bytes) -> str:
    """What a file that Pillow does not read is, by its first bytes, and what to do: the end of a sentence about it."""
    if head[4:8] == b"ftyp":
        if head[8:12] in HEIF:
            return "is a HEIC picture, which is not read: save it as JPEG or PNG"
        if head[8:11] == b"avi" and "AVIF" in formats():
            return "is a damaged AVIF picture: copy or save it again"
        kind = "an AVIF picture, which this Pillow does not read" if head[8:11] == b"avi" else "a video, not a picture"
        return f"is {kind}: {READABLE}"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the picture itself: run `git lfs pull`"
    text = head[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a picture: download the picture itself"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in head[:4096].lower()):
        return f"is an SVG drawing, which is not read: {READABLE}"
    for start, kind in STARTS:
        if head.startswith(start):
            return f"is {kind}, which is not read: {READABLE}"
    if head.startswith(b"\xff\xd8\xff") and (bits := _jpeg_bits(head)) not in (0, 8):
        return f"is a JPEG with {bits} bits a channel, which is not read: save it with 8 bits a channel"
    if bits_of_tiff := _tiff_bits(head):
        return f"is a TIFF with {bits_of_tiff} a channel, which is not read: save it with 8 or 16 bits a channel"
    return f"is not a picture that can be read: {READABLE} (HEIC: save as JPEG)"


def _jpeg_bits(head: bytes) -> int:
    """Bits a channel of a JPEG, by its frame header; 0: not found."""
    place = 2
    while place + 9 < len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return head[place + 4]
        place += 2 + length
    return 0


def _tiff_bits(head: bytes) -> str:
    """The samples of a TIFF, such as `32-bit floats`, by its first directory; empty: not found, or it is no TIFF."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return ""
    tags = dict(_tiff_tags(head, order))
    bits, kind = tags.get(258, [0])[0], tags.get(339, [1])[0]
    return f"{bits}-bit floats" if kind == 3 else f"{bits} bits" if bits else ""


def _tiff_tags(head: bytes, order: str) -> Iterator[tuple[int, Sequence[int]]]:
    """(tag, numbers) of the first directory, as far as `head` holds it."""
    (start,) = struct.unpack_from(f"{order}I", head, 4)
    if start + 2 > len(head):
        return
    (count,) = struct.unpack_from(f"{order}H", head, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(head) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", head, place)
        size = TIFF_SIZES.get(kind)
        if size is None or not 0 < number <= 16:
            continue
        where = place + 8 if size * number <= 4 else struct.unpack_from(f"{order}I", head, place + 8)[0]
        if where + size * number <= len(head):
            yield tag, struct.unpack_from(f"{order}{number}{'xBHxI'[size]}", head, where)
