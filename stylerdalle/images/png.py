"""The chunks of a PNG file that Pillow refuses or does not read (W3C PNG, third edition)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
MAX_PROFILE = 32 * 2**20  # bytes


@dataclass(frozen=True)
class PNG:
    """A PNG file without its texts, and its colour space."""

    data: bytes
    profile: bytes = b""
    gamma: float = 0.0  # of gAMA; 0: none, or another chunk takes precedence
    cicp: bytes = b""  # primaries, transfer function, matrix, full range


def read_png(data: bytes) -> PNG:
    """Take out the texts and the colour profile. Pillow calls a picture damaged if they unpack to more than 1 MB.

    Texts that hold EXIF data ("Raw profile type exif") stay. Of the colour spaces, as the standard says, cICP precedes iCCP,
    which precedes sRGB, which precedes gAMA.
    """
    kept, found, place = [data[:8]], dict[bytes, bytes](), 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length] if kind != b"IDAT" else b""
        if kind in (b"iCCP", b"gAMA", b"cICP", b"sRGB"):
            found.setdefault(kind, body)
        elif kind not in TEXTS or (body.startswith(b"Raw profile type") and length < 65_536):
            kept.append(data[place : place + 12 + length])
        place += 12 + length
    kept.append(data[place:])
    gamma = 0.0
    if len(found.get(b"gAMA", b"")) == 4 and not found.keys() & {b"iCCP", b"sRGB", b"cICP"}:
        gamma = int.from_bytes(found[b"gAMA"], "big") / 100_000
    cicp = found.get(b"cICP", b"")
    return PNG(b"".join(kept), b"" if len(cicp) == 4 else _profile(found.get(b"iCCP", b"")), gamma, cicp)


def _profile(chunk: bytes) -> bytes:
    """The ICC profile of an iCCP chunk: name, zero, zero, zlib stream. Empty if there is none; b"?" if it cannot be unpacked."""
    _, zero, packed = chunk.partition(b"\x00")
    if not zero:
        return b""
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_PROFILE) or b"?"
    except zlib.error:
        return b"?"
