"""Pictures to train on."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylerdalle.learn import crops, schedule, sources
from stylerdalle.learn import pictures as data


def encoded(colour: str, size: tuple[int, int] = (20, 12), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    note = {"caption": ["a red field"], "style": "fauvism", "kind": "art", "content": None}
    files = {"000.png": encoded("red"), "000.json": json.dumps(note).encode(), "001.png": encoded("blue"), "readme.txt": b"x"}
    with tarfile.open(path, "w") as tar:
        for name, blob in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return path


def test_a_shard_gives_its_pictures_with_what_is_known_of_them(shard):
    red, blue = sources.read_pictures([shard])
    assert (red.key, red.captions, red.style, red.kind, red.content) == ("000", ("a red field",), "fauvism", "art", "")
    assert (blue.key, blue.captions, blue.kind) == ("001", (), "photo")
    assert red.open().getpixel((0, 0)) == (255, 0, 0)


def test_a_folder_gives_its_shards_or_else_its_pictures(shard, tmp_path):
    assert len(sources.read_pictures([tmp_path])) == 2
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "deep" / "b.png").write_bytes(encoded("lime"))
    (tmp_path / "photos" / "a.PNG").write_bytes(encoded("lime"))
    assert [p.key for p in sources.read_pictures([tmp_path / "photos"])] == ["a.PNG", "deep/b.png"]


def test_picture_files_may_be_given_by_name(tmp_path):
    (tmp_path / "a.JPG").write_bytes(encoded("lime"))
    (tmp_path / "b.png").write_bytes(encoded("red"))
    pictures = sources.read_pictures([tmp_path / "b.png", tmp_path / "a.JPG"])
    assert [p.key for p in pictures] == ["b.png", "a.JPG"]
    assert pictures[0].open().getpixel((0, 0)) == (255, 0, 0)


def test_transparent_parts_become_white():
    picture = data.Picture("a", encoded("#ff000000", mode="RGBA"))
    assert picture.open().getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "no", "does not exist"),
        (lambda p: (p / "empty").mkdir() or p / "empty", "holds no picture"),
        (lambda p: (p / "a.tar").write_bytes(b"not a tar") and p / "a.tar", "neither a picture .*nor a readable tar shard"),
    ],
)
def test_a_path_without_pictures_is_refused(tmp_path, make, says):
    with pytest.raises(ValueError, match=says):
        sources.read_pictures([make(tmp_path)])


def test_a_picture_is_for_validation_by_its_key_alone():
    pictures = [data.Picture(f"{i:05}", b"") for i in range(5000)]
    train, valid = data.split_validation(pictures, 0.01)
    assert 25 < len(valid) < 80
    assert len(train) + len(valid) == 5000
    assert data.split_validation(pictures[::2], 0.01)[1] == [p for p in valid if p in pictures[::2]]


@pytest.mark.parametrize(("width", "height"), [(100, 60), (60, 100), (40, 40), (20, 300)])
def test_a_random_crop_is_a_square_of_the_size_asked_for(width, height):
    image = Image.new("RGB", (width, height), "red")
    for seed in range(5):
        crop = crops.random_crop(image, 32, np.random.default_rng(seed), (0.5, 2.0))
        assert crop.shape == (32, 32, 3)
        assert crop.dtype == np.uint8


def test_a_crop_at_zoom_1_keeps_whole_pixels():
    values = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    crop = crops.random_crop(Image.fromarray(values), 32, np.random.default_rng(1), flip=False)
    places = [(y, x) for y in range(19) for x in range(39) if np.array_equal(values[y : y + 32, x : x + 32], crop)]
    assert len(places) == 1


def test_the_evaluation_crop_is_the_centre_of_the_shortest_side():
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (100, 0, 200, 100))
    crop = np.asarray(crops.centre_crop(image, 50))
    assert crop.shape == (50, 50, 3)
    assert crop[:, 3:-3].min() > 250


def test_crops_become_floats_in_0_to_1():
    batch = crops.to_tensor([np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)])
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == torch.float32
    assert (batch[0].min(), batch[1].max()) == (1, 0)


def test_a_resumed_run_sees_the_batches_an_unbroken_one_would_have_seen():
    def make(step: int, rng: np.random.Generator) -> tuple[int, float]:
        return step, float(rng.random())

    whole = list(schedule.batches(make, 5, 0, 12))
    assert [step for step, _ in whole] == list(range(12))
    assert list(schedule.batches(make, 5, 7, 12)) == whole[7:]
    assert len({value for _, value in whole}) == 12
    assert list(schedule.batches(make, 6, 0, 12)) != whole


def test_a_small_picture_is_enlarged_and_a_large_one_left_alone():
    small, large = Image.new("RGB", (10, 30)), Image.new("RGB", (100, 300))
    assert crops.at_least(small, 20).size == (20, 60)
    assert crops.at_least(large, 20) is large
