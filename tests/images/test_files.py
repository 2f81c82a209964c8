"""Picture files as users have them."""

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from stylerdalle.images import decode
from stylerdalle.images import files as pictures
from stylerdalle.images.files import read_picture, write_picture

RED = (200, 40, 30)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def half_red() -> Image.Image:
    """Left half red, right half blue, 12 x 8."""
    image = Image.new("RGB", (12, 8), RED)
    image.paste((20, 30, 220), (6, 0, 12, 8))
    return image


def first_pixel(images: torch.Tensor) -> list[int]:
    return (images[0, :, 0, 0] * 255).round().int().tolist()


def test_an_rgb_picture_comes_back_as_float_in_0_to_1_without_alpha(tmp_path):
    images, alpha = read_picture(saved(tmp_path / "a.png", half_red()))
    assert images.shape == (1, 3, 8, 12)
    assert images.dtype == torch.float32
    assert first_pixel(images) == list(RED)
    assert alpha is None


def test_a_picture_that_lies_on_its_side_by_exif_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    images, _ = read_picture(saved(tmp_path / "a.jpg", half_red(), exif=exif, quality=100, subsampling=0))
    assert images.shape == (1, 3, 12, 8)
    assert images[0, 0, 0].mean() > 0.7  # red above
    assert images[0, 2, -1].mean() > 0.7  # blue below


def test_cmyk_is_converted(tmp_path):
    images, _ = read_picture(saved(tmp_path / "a.jpg", half_red().convert("CMYK"), quality=100))
    assert np.allclose(first_pixel(images), RED, atol=12)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    images, _ = read_picture(saved(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    assert images.shape == (1, 3, 8, 8)
    assert torch.allclose(images[0, 1], torch.from_numpy(values.astype(np.float32) / 65535), atol=1e-4)


def test_a_palette_with_a_transparent_colour_gives_an_alpha(tmp_path):
    image = half_red().quantize(4)
    index = image.getpixel((0, 0))
    images, alpha = read_picture(saved(tmp_path / "a.png", image, transparency=index))
    assert alpha is not None
    assert alpha[0, 0, :, :6].max() == 0
    assert alpha[0, 0, :, 6:].min() == 1
    assert images[0, 2, 0, -1] > 0.8


def test_an_opaque_alpha_is_left_out(tmp_path):
    assert read_picture(saved(tmp_path / "a.png", half_red().convert("RGBA")))[1] is None


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "YCbCr"])
def test_other_modes_come_back_as_three_channels(tmp_path, mode):
    image = half_red().convert(mode)
    path = tmp_path / ("a.jpg" if mode == "YCbCr" else "a.png")
    images, _ = read_picture(saved(path, image))
    assert images.shape == (1, 3, 8, 12)
    assert images.max() <= 1


def test_an_animation_gives_its_first_frame_and_a_warning(tmp_path, caplog):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        images, _ = read_picture(path)
    assert first_pixel(images) == [255, 0, 0]
    assert "3 frames" in caplog.text


def test_a_colour_profile_is_converted_to_srgb(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")  # red is blue
    renamed = swapped.replace("sRGB".encode("utf-16-be"), "BGR ".encode("utf-16-be"))
    images, _ = read_picture(saved(tmp_path / "a.png", half_red(), icc_profile=renamed))
    assert np.allclose(first_pixel(images), RED[::-1], atol=3)


def test_a_broken_colour_profile_is_ignored_with_a_warning(tmp_path, caplog):
    images, _ = read_picture(saved(tmp_path / "a.png", half_red(), icc_profile=b"no profile"))
    assert first_pixel(images) == list(RED)
    assert "colour profile" in caplog.text


def bad_files(folder: Path) -> dict[str, Path]:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
    whole = stream.getvalue()
    files = {"text.png": b"not a picture", "empty.jpg": b"", "cut.png": whole[: len(whole) // 2], "head.png": whole[:20]}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    saved(folder / "line.png", Image.new("RGB", (300, 1)))
    (folder / "folder.png").mkdir()
    return {name: folder / name for name in [*files, "line.png", "folder.png", "missing.png"]}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("text.png", "not a picture"),
        ("empty.jpg", "is empty"),
        ("cut.png", "damaged or cut off"),
        ("head.png", "not a picture|damaged"),
        ("line.png", "300 x 1 px"),
        ("folder.png", "is a folder"),
        ("missing.png", "does not exist"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(tmp_path, name, says):
    with pytest.raises(ValueError, match=says) as caught:
        read_picture(bad_files(tmp_path)[name])
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("1", (4000, 4000)))
    monkeypatch.setattr(decode, "MAX_PIXELS", 10**6)
    with pytest.raises(ValueError, match="4000 x 4000 px: at most"):
        read_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # Pillow's own check comes first where it is the lower one
    with pytest.raises(ValueError, match="too large"):
        read_picture(path)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_survives_writing_and_reading(tmp_path, suffix):
    picture = torch.rand(1, 4, 10, 14, generator=torch.Generator().manual_seed(0))
    picture[:, 3] = torch.linspace(0, 1, 14)
    path = write_picture(tmp_path / f"a.{suffix}", picture)
    images, alpha = read_picture(path)
    assert alpha is not None
    assert torch.allclose(alpha[0, 0], picture[0, 3], atol=1 / 255)
    if suffix == "png":
        assert torch.allclose(images, picture[:, :3], atol=1 / 255)


def test_a_jpeg_has_white_where_the_picture_is_transparent(tmp_path):
    images, alpha = read_picture(write_picture(tmp_path / "a.jpg", torch.zeros(1, 4, 16, 16)))
    assert alpha is None
    assert images.min() > 0.98


def test_an_existing_file_is_kept_unless_overwrite_is_asked_for(tmp_path):
    path = write_picture(tmp_path / "a.png", torch.zeros(1, 3, 4, 4))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        write_picture(path, torch.ones(1, 3, 4, 4))
    assert path.read_bytes() == before
    write_picture(path, torch.ones(1, 3, 4, 4), overwrite=True)
    assert read_picture(path)[0].min() == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_picture(tmp_path / "a.png", torch.zeros(1, 3, 4, 4))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
        write_picture(path, torch.ones(1, 3, 4, 4), overwrite=True)
    assert os.listdir(tmp_path) == ["a.png"]
    assert read_picture(path)[0].max() == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.bmp", "suffix '.bmp'"), ("a", "suffix ''"), ("file/a.png", "is a file, not a folder"), ("dir.png", "is a folder")],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, says):
    (tmp_path / "file").write_text("")
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(ValueError, match=says):
        write_picture(tmp_path / name, torch.zeros(1, 3, 4, 4))


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match="no permission to write"):
        pictures.check_output(tmp_path / "a.png")


def test_resizing_sets_the_shortest_side_and_refuses_giants():
    assert pictures.resized(torch.rand(1, 3, 30, 61), 15).shape == (1, 3, 15, 30)
    with pytest.raises(ValueError, match="choose a smaller size"):
        pictures.resized(torch.rand(1, 3, 2, 40_000), 512)
