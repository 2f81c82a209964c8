"""Inputs that went wrong in similar tools, each through every command that reads it, with the value that is right.

The tests of the rooms have more cases of each kind.
"""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fake_comfyui import Fake, write_workflow
from images.test_decode import HEIC, big_text, float_tiff, icc, jpeg_of_12_bits, png, saved
from PIL import Image, ImageCms
from safetensors.torch import load_file, save_file

from stylerdalle.cli.main import main
from stylerdalle.images.files import read_picture
from stylerdalle.images.kinds import formats
from stylerdalle.storage import read_metadata

WIDE = (96, 64)
COLOUR, RED = (60, 200, 60), (200, 40, 30)
LINEAR_GREY, GREY = (55,) * 3, (128,) * 3  # 55 in linear light is 128 in sRGB
P3_TO_SRGB = ((1.2249, -0.2247, 0), (-0.0420, 1.0419, 0), (-0.0197, -0.0786, 1.0979))  # in linear light


def flat(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, WIDE, colour)


def by_lcms(colour: tuple[int, ...], **profile: object) -> np.ndarray:
    """What LittleCMS makes of a colour with a profile (icc())."""
    given = ImageCms.ImageCmsProfile(io.BytesIO(icc(**profile)))
    image = ImageCms.profileToProfile(flat(colour), given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(image)[0, 0]


def from_p3(colour: tuple[int, ...]) -> np.ndarray:
    """Display P3 -> sRGB."""
    unit = np.array(colour) / 255
    linear = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    linear = (np.array(P3_TO_SRGB) @ linear).clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def exif(**options: int) -> bytes:
    """EXIF data: the picture lies on its side, and has an author."""
    made = Image.Exif()
    made[0x0112], made[0x013B] = options.get("orientation", 6), "somebody with a long name"
    return b"Exif\0\0" + made.tobytes().removeprefix(b"Exif\0\0")


def with_exif(data: bytes) -> bytes:
    whole = saved(flat(RED), "JPEG", quality=95)
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + whole[2:]


def adobe_by_exif() -> bytes:
    made = Image.Exif()
    made[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    return saved(flat(COLOUR), "JPEG", quality=100, subsampling=0, exif=made)


# name of the file: (its bytes, its colour in sRGB, its size, what is remarked)
READ = {
    "adobe-rgb.png": (png(flat(COLOUR), icc_profile=icc(primaries="adobe")), by_lcms(COLOUR, primaries="adobe"), WIDE, ""),
    "p3.png": (png(flat(COLOUR), icc_profile=icc(primaries="p3")), by_lcms(COLOUR, primaries="p3"), WIDE, ""),
    "alpha.png": (
        png(flat((*COLOUR, 255 - 51), "RGBA"), icc_profile=icc(primaries="adobe")),
        *(by_lcms(COLOUR, primaries="adobe"), WIDE, ""),
    ),
    "grey.png": (png(Image.new("L", WIDE, 55), icc_profile=icc("GRAY", gamma=1.0)), GREY, WIDE, ""),
    "named-srgb.png": (png(flat(LINEAR_GREY), icc_profile=icc(gamma=1.0, name="GIMP built-in Linear sRGB")), GREY, WIDE, ""),
    "gamma.png": (png(flat(LINEAR_GREY), {b"gAMA": struct.pack(">I", 100_000)}), GREY, WIDE, ""),
    "cicp.png": (png(flat(COLOUR), {b"cICP": bytes([12, 13, 0, 1])}), from_p3(COLOUR), WIDE, ""),
    "_DSC0001.JPG": (adobe_by_exif(), by_lcms(COLOUR, primaries="adobe", gamma=563 / 256), WIDE, ""),
    "scan.png": (png(Image.fromarray(np.full(WIDE[::-1], 128 * 257, np.uint16))), GREY, WIDE, ""),
    "ztxt.png": (png(flat(RED), {b"zTXt": big_text(b"zTXt")}), RED, WIDE, ""),
    "itxt.png": (png(flat(RED), {b"iTXt": big_text(b"iTXt")}), RED, WIDE, ""),
    "twice.jpg": (with_exif(b"Exif\0\0" + exif()), RED, WIDE[::-1], "its EXIF data has its header twice"),
    "cut.jpg": (with_exif(exif()[:24]), RED, WIDE, "its EXIF data is damaged"),
    "photo.jfif": (with_exif(exif(orientation=1)), RED, WIDE, ""),
}
HEIC_SAYS = "is a HEIC picture, which is not read: save it as JPEG or PNG"
REFUSED = {
    "IMG_1.HEIC": (HEIC, HEIC_SAYS),
    "IMG_2.jpg": (HEIC, HEIC_SAYS),
    "deep.jpg": (jpeg_of_12_bits(), "is a JPEG with 12 bits a channel, which is not read: save it with 8 bits a channel"),
    "hdr.tif": (float_tiff(), "is a TIFF with 32-bit floats a channel, which is not read: save it with 8 or 16 bits a channel"),
}
TUNE = {"style": "a mosaic", "steps": 2, "size": 32, "batch": 1, "views": 1, "rank": 2, "check-every": 1, "patience": 0}


class Commands:
    """Runs commands with the tiny bundle in a folder of their own."""

    def __init__(self, bundle: Path, capsys: pytest.CaptureFixture[str]):
        self.bundle, self.capsys = bundle, capsys

    def __call__(self, command: str, *words: object, code: int = 0, **options: object) -> str:
        """Run a command that ends so -> all that it says."""
        options = {"bundle": self.bundle, "device": "cpu", **options}
        given = [*words, *(word for key, value in options.items() for word in (f"--{key}", value))]
        self.capsys.readouterr()
        found = main([command, *map(str, given)])
        said = "".join(self.capsys.readouterr())
        assert found == code, said
        assert "Traceback" not in said
        return said

    def prepare(self, folder: str = "photos", code: int = 0) -> str:
        return self("prepare", code=code, images=folder, sides=32, output="tokens")

    def tune(self, folder: str = "photos", code: int = 0) -> str:
        return self("tune", code=code, images=folder, output="new.safetensors", **{"run-dir": "run"}, **TUNE)

    def evaluate(self, folder: str = "photos", code: int = 0) -> str:
        return self("evaluate", "--json", code=code, images=folder, style="ukiyo-e", size=32)

    def queue(self, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, list[str]]:
        """(what it says, the photos that were sent)."""
        server = Fake()
        words = ["--workflow", write_workflow(Path("workflow.json")), "--images", "photos", "--output", "out", "--poll", 0.05]
        capsys.readouterr()
        try:
            found = main(["queue", "--server", server.url, *map(str, words)])
        finally:
            server.stop()
        said = "".join(capsys.readouterr())
        assert found == code, said
        return said, sorted(server.ran)


@pytest.fixture
def run(tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.chdir(tmp_path)
    return Commands(bundle_folder, capsys)


def write(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("name", READ)
def test_every_command_reads_it_with_its_right_colours(run: Commands, name: str) -> None:
    data, colour, size, remark = READ[name]
    write({name: data})
    images, alpha = read_picture(f"photos/{name}")
    assert np.abs(255 * images[0].flatten(1).mean(1).numpy() - np.array(colour)).max() <= 2
    seen = np.array(colour) if alpha is None else 0.8 * np.array(colour) + 0.2 * 255  # trainings see it over white
    said = [
        run("stylize", f"photos/{name}", style="ukiyo-e", output="painted.png"),
        run("reconstruct", f"photos/{name}", output="decoded.png"),
        run.prepare(),
        run.evaluate(),
        run("score", f"photos/{name}", text="a ukiyo-e print"),
    ]
    for output in ("painted.png", "decoded.png"):
        assert Image.open(output).size == size
    with tarfile.open("tokens/tokens-00000.tar") as tar:
        (member,) = (member for member in tar.getmembers() if member.name.endswith(".webp"))
        shown = Image.open(io.BytesIO(tar.extractfile(member).read()))
        assert np.abs(np.asarray(shown).mean((0, 1)) - seen).max() <= 4
    for text in said:
        assert (remark in text) if remark else ("WARNING" not in text), text


def test_a_training_reads_them_all(run: Commands) -> None:
    write({name: data for name, (data, *_) in READ.items()})
    said = run.tune()
    assert "left out" not in said and said.count("WARNING") == sum(bool(remark) for *_, remark in READ.values())
    assert read_metadata("new.safetensors")["name"] == "new"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named_in_one_sentence(run: Commands, name: str) -> None:
    data, says = REFUSED[name]
    write({name: data})
    for command, options in {"stylize": {"style": "ukiyo-e"}, "reconstruct": {}}.items():
        said = run(command, f"photos/{name}", code=2, output="out.png", **options)
        assert says in said and said.count("\n") == 1
    assert not Path("out.png").exists()


def test_pictures_of_a_phone_in_a_folder_are_said_to_be_passed_over(run, capsys) -> None:
    good = {"good.jpg": saved(flat(RED), "JPEG"), "other.jpg": saved(flat(COLOUR), "JPEG")}
    write(good | {"IMG_1.HEIC": HEIC})
    sent, photos = run.queue(capsys)
    assert photos == sorted(good)
    for said in (sent, run.prepare(), run.tune(), run.evaluate()):
        assert "passed over, not pictures: 1 .heic (IMG_1.HEIC); HEIC is not read, save it as JPEG" in said


def test_bad_pictures_are_named_before_a_training_begins_and_left_out(run: Commands) -> None:
    good = saved(flat(RED), "JPEG")
    bad = {"cut.jpg": good[:-60], "page.jpg": b"<!DOCTYPE html><html>", "zero.jpg": b""}
    write({f"good{k}.jpg": saved(flat(RED), "JPEG", quality=90 + k) for k in range(3)} | bad)
    for said in (run.prepare(), run.tune()):
        assert all(f"{name} is " in said for name in bad), said
        assert said.count("left out: ") == 3
    assert "3 pictures in 1 shards" in run("prepare", images="photos", sides=32, output="again")


def test_hidden_files_are_passed_over_in_silence_and_other_folders_read(run, capsys) -> None:
    photos = ("UPPER.JPG", "good0.jpg", "good1.jpg", "good2.jpg", "day 2/good0.jpg")
    junk = (".DS_Store", "._good0.jpg", ".thumbs/t.png", "Thumbs.db")
    write({name: saved(flat(RED), "JPEG", quality=90 + k) for k, name in enumerate(photos)} | dict.fromkeys(junk, b"\0\5\x16\7"))
    said = run.prepare()
    assert "5 pictures in 1 shards" in said and "WARNING" not in said
    assert "WARNING" not in run.tune()
    assert len(run.queue(capsys)[1]) == 5
    Path("photos/day 2/loop").symlink_to("..")  # a folder in itself is said, and stops nothing
    assert "day 2/loop" in run.prepare()


def test_trainings_read_the_suffixes_that_stylize_reads(run: Commands) -> None:
    kinds = {"a.jpg": "JPEG", "b.tif": "TIFF", "c.bmp": "BMP", "d.jfif": "JPEG", "e.gif": "GIF", "f.webp": "WEBP"}
    kinds |= {"g.avif": "AVIF"} if "AVIF" in formats() else {}
    scene = Image.effect_mandelbrot(WIDE, (-2, -1, 1, 1), 20)
    write({name: saved(scene, kind) for name, kind in kinds.items()})
    said = run.prepare()
    assert f"{len(kinds)} pictures in 1 shards" in said and "WARNING" not in said
    assert f'"photos": {len(kinds)}' in run.evaluate()
    assert "WARNING" not in run.tune()
    for name in kinds:
        run("stylize", f"photos/{name}", style="ukiyo-e", output=f"{name}.png")


def test_colour_hidden_under_alpha_0_changes_nothing_that_is_seen(run: Commands) -> None:
    alpha = np.zeros((64, 96), np.uint8)
    alpha[16:48, 24:72] = 255
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    for name, hidden in (("black", 0), ("white", 255)):
        image = np.dstack([np.where(alpha[..., None] > 0, pixels, hidden), alpha]).astype(np.uint8)
        write({f"{name}.png": png(Image.fromarray(image))})
    for size in ((), ("--size", 40)):
        found = []
        for name in ("black", "white"):
            run("stylize", f"photos/{name}.png", *size, "--overwrite", style="ukiyo-e", output=f"{name}.png")
            found.append(read_picture(f"{name}.png"))
        (black, seen), (white, same) = found
        assert (seen == same).all() and 0.1 < seen.mean() < 0.5
        assert ((black - white).abs() * (seen > 0.05)).max() <= 2 / 255


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_painting_keeps_date_author_and_resolution_of_its_photo(run: Commands, suffix: str) -> None:
    made = Image.Exif()
    made[0x013B], made[0x0132], made[0x8769] = "Ada", "2024:05:06 07:08:09", {0x9003: "2024:05:06 07:08:10"}
    write({"photo.jpg": saved(flat(RED), "JPEG", exif=made, dpi=(300, 300))})
    run("stylize", "photos/photo.jpg", style="ukiyo-e", output=f"out.{suffix}")
    with Image.open(f"out.{suffix}") as image:
        kept = image.getexif()
        assert (kept[0x013B], kept[0x0132], kept.get_ifd(0x8769)[0x9003]) == ("Ada", "2024:05:06 07:08:09", "2024:05:06 07:08:10")
        assert round(image.info["dpi"][0]) == 300


def test_a_photo_that_goes_away_while_it_is_painted_costs_no_work(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    write({"photo.jpg": saved(flat(RED), "JPEG")})
    from stylerdalle import pipeline

    real = pipeline.stylize

    def painted(*args: object, **options: object) -> object:
        Path("photos/photo.jpg").unlink(missing_ok=True)
        return real(*args, **options)

    monkeypatch.setattr(pipeline, "stylize", painted)
    run("stylize", "photos/photo.jpg", style="ukiyo-e", output="out.png")
    assert Image.open("out.png").size == WIDE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_style_file_paints_whatever_its_precision(run: Commands, bundle_folder: Path, dtype: str) -> None:
    import torch

    write({"photo.jpg": saved(flat(RED), "JPEG")})
    source = bundle_folder / "styles" / "ukiyo-e.safetensors"
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(source).items()}
    save_file(tensors, "mine.safetensors", read_metadata(source))
    run("stylize", "photos/photo.jpg", style="mine.safetensors", output="out.png")
    assert Image.open("out.png").size == WIDE
