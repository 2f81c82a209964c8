"""Pictures as cameras, scanners and editors write them: each is read with its right colours, or named in one sentence."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from stylerdalle.images import decode as decode_module
from stylerdalle.images.alpha import without_hidden
from stylerdalle.images.decode import decode
from stylerdalle.images.files import read_picture, resized, write_picture
from stylerdalle.images.kinds import formats
from stylerdalle.images.notes import read_notes
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.sources import checked

RED = (200, 40, 30)
SRGB = ImageCms.createProfile("sRGB")
PRIMARIES = {
    "srgb": ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06)),
    "adobe": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "p3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}


def icc(space: str = "RGB ", primaries: str = "srgb", gamma: float = 2.2, name: str = "a profile") -> bytes:
    """A small ICC profile, version 2: matrix and gamma, or for `GRAY` a gamma."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: object) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(s15, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = name.encode() + b"\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78, b"cprt": b"text\0\0\0\0none\0"}
    tags[b"wtpt"] = xyz((0.9642, 1, 0.8249))
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[primaries]]).T
        white, d50 = np.array([0.95046, 1, 1.08906]), np.array([0.9642, 1, 0.8249])
        matrix = columns * np.linalg.solve(columns, white)
        adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford
        for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), (adapt @ matrix).T, strict=True):
            tags[key] = xyz(column)
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for key, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += key + struct.pack(">II", place + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02400000, b"mntr", space.encode(), b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + s15(0.9642) + s15(1) + s15(0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def png(image: Image.Image, chunks: dict[bytes, bytes] | None = None, **options: object) -> bytes:
    """A PNG file, with these chunks after its header."""
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    data, extra = stream.getvalue(), b""
    for kind, body in (chunks or {}).items():
        extra += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + extra + data[33:]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ramp() -> Image.Image:
    """Smooth colours, 16 x 16."""
    y, x = np.mgrid[0:16, 0:16] * 17
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def first(data: bytes) -> list[int]:
    pixel = decode(data, "a").over_white().getpixel((0, 0))
    return list(pixel)


# colour


@pytest.mark.parametrize("primaries", ["adobe", "p3"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_profile_gives_the_colours_that_lcms_gives_with_and_without_alpha(primaries, mode):
    profile = icc(primaries=primaries)
    image = ramp()
    want = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, outputMode="RGB")
    image = image.convert(mode)
    if mode == "RGBA":
        image.putalpha(200)
    found = decode(png(image, icc_profile=profile), "a")
    assert np.abs(found.pixels.astype(int) - np.asarray(want)).max() <= 2
    assert np.abs(found.pixels.astype(int) - np.asarray(ramp())).max() > 5
    assert (found.alpha is None) == (mode == "RGB")


def test_a_profile_is_judged_by_its_content_and_not_by_its_name():
    linear = png(Image.new("RGB", (8, 8), (55, 55, 55)), icc_profile=icc(gamma=1.0, name="GIMP built-in Linear sRGB"))
    assert abs(first(linear)[1] - 128) <= 1
    odd_name = png(ramp(), icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes())
    assert np.array_equal(decode(odd_name, "a").pixels, np.asarray(ramp()))  # sRGB changes nothing, not even by rounding


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_is_used(mode):
    image = Image.new("L", (8, 8), 55)
    image = Image.fromarray(np.full((8, 8), 55 * 257, np.uint16)) if mode == "I;16" else image.convert(mode)
    assert abs(first(png(image, icc_profile=icc("GRAY", gamma=1.0)))[0] - 128) <= 1


def test_a_profile_of_other_channels_is_ignored_with_a_remark():
    found = decode(png(ramp(), icc_profile=icc("GRAY")), "a")
    assert np.array_equal(found.pixels, np.asarray(ramp()))
    assert "colour profile cannot be used" in found.remarks[0]


def test_lab_is_converted():
    lab = ImageCms.profileToProfile(Image.new("RGB", (8, 8), RED), SRGB, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert np.allclose(first(saved(lab, "TIFF")), RED, atol=2)


def test_png_gamma_is_used_unless_another_colour_space_precedes_it():
    grey, linear = Image.new("RGB", (8, 8), (55, 55, 55)), struct.pack(">I", 100_000)
    assert abs(first(png(grey, {b"gAMA": linear}))[0] - 128) <= 1
    assert first(png(grey, {b"gAMA": struct.pack(">I", 45_455)})) == [55, 55, 55]
    assert first(png(grey, {b"gAMA": linear, b"sRGB": b"\0"})) == [55, 55, 55]
    deep = Image.fromarray(np.full((8, 8), 55 * 257, np.uint16))
    assert abs(decode(png(deep, {b"gAMA": linear}), "a").pixels[0, 0] - 128 / 255) < 0.005


def test_png_cicp_is_used_and_one_of_hdr_is_remarked():
    p3 = decode(png(ramp(), {b"cICP": bytes([12, 13, 0, 1])}), "a").pixels.astype(int)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc(primaries="p3", gamma=2.2)))
    want = np.asarray(ImageCms.profileToProfile(ramp(), profile, SRGB, outputMode="RGB")).astype(int)
    assert np.abs(p3 - want)[4:12, 4:12].max() <= 8  # the profile has a gamma of 2.2, cICP's 13 is sRGB's curve
    assert np.abs(p3 - np.asarray(ramp())).max() > 10
    assert first(png(Image.new("RGB", (8, 8), RED), {b"cICP": bytes([1, 13, 0, 1])})) == list(RED)
    assert "cICP 9, 16" in decode(png(ramp(), {b"cICP": bytes([9, 16, 0, 1])}), "a").remarks[0]


def test_adobe_rgb_by_exif_is_used():
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    green = Image.new("RGB", (16, 16), (60, 200, 60))
    marked, plain = (decode(saved(green, "JPEG", quality=100, subsampling=0, **o), "a").pixels for o in ({"exif": exif}, {}))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc(primaries="adobe", gamma=563 / 256)))
    want = ImageCms.profileToProfile(Image.fromarray(plain), profile, SRGB, outputMode="RGB")
    assert np.abs(marked.astype(int) - np.asarray(want)).max() <= 2
    assert plain[0, 0, 0] - marked[0, 0, 0] > 20


# depth and transparency


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_in_training_too(kind):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    image = Picture("a", saved(Image.fromarray(values), kind)).open()
    assert np.abs(np.asarray(image)[..., 0] - values / 257.0).max() <= 1


def test_white_is_zero_at_every_depth(tmp_path):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[262] = 0
    for array in (np.full((8, 8), 1000, np.uint16), np.full((8, 8), 4, np.uint8)):
        data = bytearray(saved(Image.fromarray(array), "TIFF"))
        tag = data.index(struct.pack("<HHI", 262, 3, 1))
        data[tag + 8 : tag + 10] = b"\0\0"
        assert min(first(bytes(data))) > 245


def test_a_clear_colour_of_16_bits_is_transparent():
    values = np.full((8, 8), 40_000, np.uint16)
    values[:4] = 1234
    found = decode(png(Image.fromarray(values), {b"tRNS": struct.pack(">H", 1234)}), "a")
    assert found.alpha is not None and found.alpha[:4].max() == 0 and found.alpha[4:].min() == 255


@pytest.mark.parametrize(("mode", "kind"), [("LA", "PNG"), ("RGBA", "TIFF"), ("P", "PNG")])
def test_alpha_of_every_mode_is_kept(mode, kind):
    image = Image.new("RGBA", (8, 8), (200, 200, 200, 100))
    found = decode(saved(image.quantize(4) if mode == "P" else image.convert(mode), kind), "a")
    assert found.alpha is not None and abs(int(found.alpha[0, 0]) - 100) <= 1
    assert abs(int(found.pixels[0, 0, 0]) - 200) <= 1


def test_colours_under_alpha_0_do_not_reach_what_is_seen():
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 8:24, 8:24] = 1
    visible = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    black, white = (torch.where(alpha > 0, visible, torch.full_like(visible, value)) for value in (0.0, 1.0))
    small = [resized(torch.cat([picture, alpha], 1), 11) for picture in (black, white)]
    seen = small[0][:, 3:] > 0.05
    assert ((small[0] - small[1])[:, :3].abs() * seen).max() < 0.01
    filled = [without_hidden(picture, alpha) for picture in (black, white)]
    assert torch.equal(*filled)
    assert torch.equal(filled[0] * alpha, visible * alpha)
    assert filled[0][..., :8, :].std() < visible.std()
    assert torch.equal(without_hidden(black, torch.zeros_like(alpha)), torch.ones_like(black))
    odd = without_hidden(black[..., :31, :17], alpha[..., :31, :17])
    assert odd.shape == (1, 3, 31, 17)


# chunks and EXIF


def big_text(kind: bytes) -> bytes:
    text = zlib.compress(b"history " * 200_000)
    return b"history\0\0" + text if kind == b"zTXt" else b"history\0\1\0\0\0" + text


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_large_text_in_a_png_does_not_make_it_damaged(kind):
    data = png(ramp(), {kind: big_text(kind)})
    with pytest.raises(ValueError, match="(?i)too large"):  # what Pillow does
        PngImagePlugin.PngImageFile(io.BytesIO(data)).load()
    assert np.array_equal(decode(data, "a").pixels, np.asarray(ramp()))


def test_a_large_profile_in_a_png_is_read_and_a_damaged_one_remarked():
    profile = icc(primaries="p3")
    large = struct.pack(">I", len(profile) + 2_000_000) + profile[4:] + b"\0" * 2_000_000
    found = decode(png(ramp(), {b"iCCP": b"p3\0\0" + zlib.compress(large)}), "a")
    assert found.remarks == () and np.abs(found.pixels.astype(int) - np.asarray(ramp())).max() > 5
    assert "colour profile" in decode(png(ramp(), {b"iCCP": b"p3\0\0not zlib"}), "a").remarks[0]


def jpeg_with_exif(exif: bytes) -> bytes:
    data = saved(ramp(), "JPEG", quality=95)
    body = struct.pack(">H", len(exif) + 2) + exif
    return data[:2] + b"\xff\xe1" + body + data[2:]


def test_damaged_exif_never_stops_a_picture(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B] = "somebody with a long name"
    whole = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    doubled, cut = jpeg_with_exif(b"Exif\0\0" + whole), jpeg_with_exif(whole[:24])
    for data in (doubled, cut, jpeg_with_exif(b"Exif\0\0garbage")):
        assert decode(data, "a").pixels.shape == (16, 16, 3)
        (picture,) = checked([Picture("a", data)])
        assert picture.open().size == (16, 16)
    (tmp_path / "cut.jpg").write_bytes(cut)
    read_picture(tmp_path / "cut.jpg")
    assert "EXIF data is damaged" in caplog.text


def test_every_orientation_is_turned_as_pillow_turns_it():
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = saved(ramp().crop((0, 0, 16, 10)), "PNG", exif=exif)
        want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert np.array_equal(decode(data, "a").pixels, np.asarray(want))


# what cannot be read


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64


def jpeg_of_12_bits() -> bytes:
    data = bytearray(saved(ramp(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def float_tiff() -> bytes:
    """The head of an RGB TIFF of 32-bit floats."""
    tags = {256: (4, 8), 257: (4, 8), 258: (3, None), 262: (3, 2), 277: (3, 3), 339: (3, None)}
    start = 8 + 2 + 12 * len(tags) + 4
    body = struct.pack("<H", len(tags))
    for tag, (kind, value) in tags.items():
        count = 1 if value is not None else 3
        place = value if value is not None else start + (0 if tag == 258 else 6)
        body += struct.pack("<HHII", tag, kind, count, place)
    return b"II*\0" + struct.pack("<I", 8) + body + b"\0" * 4 + struct.pack("<6H", 32, 32, 32, 3, 3, 3) + b"\0" * 800


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (HEIC, "is a HEIC picture, which is not read: save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 20, "is a video"),
        (jpeg_of_12_bits(), "is a JPEG with 12 bits a channel"),
        (float_tiff(), "is a TIFF with 32-bit floats a channel, which is not read: save it with 8 or 16 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is a PostScript file, which is not read"),
        (b"%PDF-1.7\n", "is a PDF document"),
        (b"8BPS\0\1" + b"\0" * 40, "is a Photoshop file"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><html>", "is a web page, not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"hello", "is not a picture that can be read"),
        (b"", "is empty"),
        (png(ramp())[:60], "is damaged or cut off"),
    ],
)
def test_what_is_no_readable_picture_is_named_in_one_sentence_by_every_reader(data, says, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data)
    for read in (
        lambda: read_picture(tmp_path / "a.jpg"),
        Picture("a.jpg", data).open,
        lambda: checked([Picture("a.jpg", data)]),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"II*\0", b"MM\0*\0\0", b"II*\0\xff\xff\xff\xff"])
def test_a_tiff_of_a_few_bytes_is_refused_in_one_sentence(data):
    with pytest.raises(ValueError, match=r"a (is|cannot|was)"):
        decode(data, "a")


@pytest.mark.skipif("AVIF" not in formats(), reason="AVIF needs Pillow 11.3")
def test_a_damaged_avif_is_called_damaged():
    data = saved(ramp(), "AVIF")
    refused = 0
    for place in range(200, len(data), 7):
        try:
            decode(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :], "a")
        except ValueError as error:
            refused += 1
            assert "damaged" in str(error)
    assert refused


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to decode frame 0"), ZeroDivisionError(), AttributeError("x"), OverflowError()]
)
def test_whatever_a_reader_of_pillow_raises_is_a_damaged_picture(error, monkeypatch):
    def load(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ValueError, match="a is damaged or cut off"):
        decode(png(ramp()), "a")


def test_no_other_program_is_started_for_any_file(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("a program was started"))
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", saved(ramp(), "EPS")):
        with pytest.raises(ValueError, match="PostScript"):
            Picture("a.jpg", data).open()


def test_the_limit_of_pixels_is_told_as_such_to_trainings_too(monkeypatch):
    data = saved(Image.new("1", (4000, 4000)), "PNG")
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 10**6)
    with pytest.raises(ValueError, match="a is 4000 x 4000 px: at most 178 megapixels are read"):
        Picture("a", data).open()


def test_every_format_of_the_list_is_read_whatever_its_suffix(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000"):
        (tmp_path / "a.jfif").write_bytes(saved(ramp(), kind))
        assert read_picture(tmp_path / "a.jfif")[0].shape == (1, 3, 16, 16)


def test_avif_is_read_since_pillow_11_3_and_named_before(tmp_path):
    if "AVIF" in formats():
        data = saved(ramp(), "AVIF")
        assert decode(data, "a").pixels.shape == (16, 16, 3)
    else:
        with pytest.raises(ValueError, match="is an AVIF picture, which this Pillow does not read"):
            decode(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "a")


# what outputs keep


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_an_output_keeps_date_author_and_resolution(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x013B], exif[0x8298], exif[0x0132], exif[0x0112] = "Ada", "CC0", "2024:05:06 07:08:09", 6
    exif[0x8769], exif[0x8825] = {0x9003: "2024:05:06 07:08:10"}, {1: "N"}
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(ramp(), "JPEG", exif=exif, dpi=(300, 300)))
    out = write_picture(tmp_path / f"out.{suffix}", torch.rand(1, 3, 16, 16), notes=read_notes(path))
    with Image.open(out) as image:
        found = image.getexif()
        assert (found[0x013B], found[0x8298], found[0x0132]) == ("Ada", "CC0", "2024:05:06 07:08:09")
        assert found.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:10"
        assert 0x0112 not in found and not found.get_ifd(0x8825)
        assert found[0x011A] == 300
        if suffix != "webp":
            assert round(image.info["dpi"][0]) == 300


def test_a_photo_without_metadata_gives_an_output_without(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(ramp()))
    assert read_notes(tmp_path / "a.png").exif == b""
    (tmp_path / "b.jpg").write_bytes(jpeg_with_exif(b"Exif\0\0garbage"))
    write_picture(tmp_path / "c.jpg", torch.rand(1, 3, 8, 8), notes=read_notes(tmp_path / "b.jpg"))


def test_a_photo_without_exif_is_not_called_damaged_by_any_version_of_pillow(monkeypatch):
    real = Image.Exif.get_ifd

    def older(self, tag):
        if tag == 0xA005:
            raise KeyError(tag)
        return real(self, tag)

    monkeypatch.setattr(Image.Exif, "get_ifd", older)
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, "jpeg")
    assert decode(stream.getvalue(), "photo.jpg").remarks == ()
