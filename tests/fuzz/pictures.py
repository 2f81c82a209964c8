"""Pictures: valid files of every format that is read, damaged; and headers that promise anything."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from fuzz.harness import EDGES, LAST, damage
from hypothesis import strategies as st
from images.test_decode import icc, png, saved
from PIL import Image, ImageCms

from stylerdalle.images.decode import MAX_PIXELS, decode
from stylerdalle.images.png import SIGNATURE

SIDES = st.sampled_from((0, 1, 2, 3, 16, 17, 255, 256, 4000, 13_000, 14_000, 65_535, 65_536, 178_956_970, 0x7FFFFFFF, 0xFFFFFFFF))


def photo(side: int = 24) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side] * (255 // side)
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


@cache
def valid() -> list[bytes]:
    """Small files of every format, mode and compression."""
    rgb = photo()
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.getchannel(0))
    deep = Image.fromarray((np.arange(576, dtype=np.uint16) * 113).reshape(24, 24))
    real = Image.fromarray(np.linspace(0, 1, 576, dtype=np.float32).reshape(24, 24))
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:06 07:08:09"
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    lab = ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    several = {"save_all": True, "append_images": [rgb.rotate(90)]}
    modes = ("1", "L", "LA", "P", "RGB", "RGBA")
    files = [saved(alpha.convert(mode), "PNG") for mode in modes]
    files += [saved(alpha.convert(mode), "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")]
    files += [saved(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    files += [saved(deep, "PNG"), saved(deep, "TIFF"), saved(real, "TIFF"), saved(lab, "TIFF")]
    files += [saved(rgb.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")]
    files += [saved(rgb, "JPEG", progressive=True, exif=exif), saved(rgb, "JPEG", icc_profile=icc(primaries="adobe"))]
    files += [saved(alpha, "WEBP", lossless=True), saved(rgb, "WEBP", exif=exif), saved(rgb, "WEBP", **several)]
    files += [saved(alpha.convert("P"), "GIF"), saved(rgb, "GIF", **several), saved(rgb, "PNG", **several)]
    files += [saved(rgb.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")]
    files += [saved(rgb.convert(mode), "PPM") for mode in ("1", "L", "RGB")] + [b"P3 2 2 255\n" + b"9 8 7 " * 4]
    files += [saved(alpha.convert(mode), "TGA") for mode in ("L", "LA", "P", "RGB", "RGBA")] + [saved(rgb, "TGA", rle=True)]
    files += [saved(alpha.convert(mode), "JPEG2000") for mode in ("L", "RGB", "RGBA")] + [
        saved(rgb, "AVIF"),
        saved(alpha, "AVIF"),
    ]
    files += [png(rgb, {b"gAMA": struct.pack(">I", 100_000)}), png(rgb, {b"cICP": bytes([12, 13, 0, 1])})]
    files += [png(rgb, icc_profile=icc(gamma=1.0)), png(alpha, {b"tEXt": b"a\0b"}, exif=exif)]
    return files


def pictures(draw: Callable[..., Any]) -> str:
    """The target: a file gives pixels as `Decoded` promises them, or one sentence."""
    LAST[0] = data = draw(st.one_of(changed(), changed(), made()))
    found = decode(data, "a.png")
    height, width = found.pixels.shape[:2]
    assert 4 <= height * width <= MAX_PIXELS
    assert found.pixels.dtype == (np.uint8 if found.pixels.ndim == 3 else np.float32)
    assert found.pixels.ndim == 2 or found.pixels.shape[2] == 3
    assert np.isfinite(found.pixels).all() and found.pixels.min() >= 0 and found.pixels.max() <= 255
    assert found.pixels.ndim == 3 or found.pixels.max() <= 1
    assert found.alpha is None or (found.alpha.dtype, found.alpha.shape) == (np.uint8, (height, width))
    assert all("\n" not in remark and len(remark) < 500 for remark in found.remarks), found.remarks
    if height * width < 10**6:
        assert found.over_white().size == (width, height)
    return "right"


@st.composite
def changed(draw: Callable[..., Any]) -> bytes:
    """A valid file, damaged; of a PNG the checksums are often made right again, or all damage would end there."""
    data = draw(damage(draw(st.sampled_from(valid()))))
    return repaired(data) if data.startswith(SIGNATURE) and draw(st.booleans()) else data


def repaired(data: bytes) -> bytes:
    """A PNG whose chunks have their right checksums."""
    out, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        out.append(data[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        place += 12 + length
    return b"".join(out) + data[place:]


@st.composite
def made(draw: Callable[..., Any]) -> bytes:
    """A header of one of the formats with sizes of any kind, and a little data behind it."""
    width, height = draw(SIDES), draw(SIDES)
    rest = draw(st.binary(max_size=64))
    match draw(st.sampled_from(("png", "bmp", "tga", "ppm", "gif", "tiff", "jpeg", "webp", "brand", "bytes"))):
        case "png":
            depth, colour = draw(st.sampled_from((1, 2, 4, 8, 16, 3))), draw(st.sampled_from((0, 2, 3, 4, 6, 5)))
            kinds = st.sampled_from(
                (b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"cICP", b"sRGB", b"eXIf", b"acTL", b"fcTL", b"zTXt", b"iTXt")
            )
            chunks = [(kind, draw(st.binary(max_size=40))) for kind in draw(st.lists(kinds, max_size=4))]
            head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.integers(0, 2)))
            body = zlib.compress(bytes(draw(st.sampled_from((0, 10, 10_000, 3_000_000)))))
            parts = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
            return SIGNATURE + b"".join(
                struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts
            )
        case "bmp":
            bits, packing = draw(st.sampled_from((0, 1, 4, 8, 16, 24, 32, 255))), draw(st.integers(0, 6))
            head = struct.pack("<IIIHHIIIIII", 40, width, height, 1, bits, packing, 0, 0, 0, draw(st.sampled_from(EDGES[:10])), 0)
            return b"BM" + struct.pack("<IHHI", 54, 0, 0, draw(st.sampled_from((0, 14, 54, 1000)))) + head + rest
        case "tga":
            kind, bits = draw(st.sampled_from((0, 1, 2, 3, 9, 10, 11, 12))), draw(st.sampled_from((1, 8, 16, 24, 32, 7)))
            numbers = (draw(st.integers(0, 255)), draw(st.integers(0, 1)), kind, 0, draw(st.sampled_from((0, 256, 65_535))), 24)
            return (
                struct.pack("<BBBHHBHHHHBB", *numbers, 0, 0, width & 0xFFFF, height & 0xFFFF, bits, draw(st.integers(0, 255)))
                + rest
            )
        case "ppm":
            kind, most = (
                draw(st.sampled_from("123456fFyP")),
                draw(st.sampled_from(("255", "1", "0", "65535", "70000", "-1", "x"))),
            )
            return f"P{kind}\n# c\n{width} {height}\n{most}\n".encode() + rest
        case "gif":
            flags = draw(st.integers(0, 255))
            frame = b"," + struct.pack("<HHHHB", 0, 0, width & 0xFFFF, height & 0xFFFF, flags)
            return b"GIF89a" + struct.pack("<HHBBB", width & 0xFFFF, height & 0xFFFF, flags, 0, 0) + rest + frame + b"\x08" + rest
        case "tiff":
            values = st.one_of(SIDES, st.integers(0, 70))
            tags = sorted(
                {
                    256: width,
                    257: height,
                    **draw(
                        st.dictionaries(
                            st.sampled_from(
                                (
                                    258,
                                    259,
                                    262,
                                    266,
                                    273,
                                    277,
                                    278,
                                    279,
                                    282,
                                    284,
                                    317,
                                    320,
                                    322,
                                    323,
                                    324,
                                    325,
                                    338,
                                    339,
                                    34675,
                                    330,
                                )
                            ),
                            values,
                            max_size=8,
                        )
                    ),
                }.items()
            )
            ifd = b"".join(
                struct.pack(
                    "<HHII", tag, draw(st.sampled_from((3, 4, 4, 1, 5, 12))), draw(st.sampled_from((1, 1, 1, 3, 65_535))), value
                )
                for tag, value in tags
            )
            return b"II*\0" + struct.pack("<IH", 8, len(tags)) + ifd + bytes(4) + rest
        case "jpeg":
            parts = draw(st.integers(0, 5))
            frame = struct.pack(">BHHB", draw(st.sampled_from((8, 12, 0, 16))), height & 0xFFFF, width & 0xFFFF, parts)
            body = frame + b"\x01\x11\x00" * parts
            kind = draw(st.sampled_from((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xE1, 0xE2, 0xED)))
            return b"\xff\xd8\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body + rest + b"\xff\xd9"
        case "webp":
            kind = draw(st.sampled_from((b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ALPH")))
            return (
                b"RIFF"
                + struct.pack("<I", draw(st.sampled_from((0, 30, 60, 0xFFFFFFFF))))
                + b"WEBP"
                + kind
                + struct.pack("<I", len(rest))
                + rest
            )
        case "brand":
            brand = draw(st.sampled_from((b"avif", b"avis", b"heic", b"mif1", b"jp2 ")))
            return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + rest
        case _:
            return rest
