"""Pictures to shards of tokens, and back to a stream of them."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle.distributed import rank_and_world
from stylerdalle.learn import prepare as preparing
from stylerdalle.learn.crops import centre_crop, to_tensor
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.prepare import PrepareConfig, prepare, read_captions
from stylerdalle.learn.prepared import PreparedTokens, read_grid
from stylerdalle.learn.shards import write_shard
from stylerdalle.learn.sources import entries, read_pictures
from stylerdalle.storage import temporary_name

SMALL = PrepareConfig(sides=(32, 64), per_shard=4)
SHA = "f" * 64


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def write_folder(folder: Path, count: int = 10) -> Path:
    folder.mkdir(parents=True)
    for picture in pictures(count):
        (folder / f"{int(picture.key):03d}.png").write_bytes(picture.data)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_folder(tmp_path / "photos")


def files(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def tokens_of(blob: bytes) -> np.ndarray:
    return np.load(io.BytesIO(blob))


def test_a_shards_tokens_are_those_of_encoding_the_crops_directly(tokenizer, photos, tmp_path):
    index = prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL, batch=3)
    assert (index["count"], [shard["count"] for shard in index["shards"]]) == (10, [4, 4, 2])
    given = sorted(photos.iterdir())
    for number, shard in enumerate(index["shards"]):
        got = files(tmp_path / "out" / shard["name"])
        for place in range(shard["count"]):
            key, image = 4 * number + place, Image.open(given[4 * number + place]).convert("RGB")
            for name, side in (("source", 32), ("target", 64)):
                grid = tokens_of(got[f"{key:09d}.{name}.npy"])
                want = tokenizer.encode(to_tensor([np.asarray(centre_crop(image, side))]))[0]
                assert grid.dtype == np.uint16
                assert np.array_equal(grid, want.numpy()), (key, name)
            shown = Image.open(io.BytesIO(got[f"{key:09d}.webp"]))
            assert shown.size == (64, 64)
            assert json.loads(got[f"{key:09d}.json"])["file"] == given[key].name


def test_the_index_says_what_there_is(tokenizer, photos, tmp_path):
    prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["format"] == "stylerdalle/tokens/1"
    assert (index["tokenizer"], index["vocab_size"], index["sides"]) == (SHA, 512, [32, 64])
    assert (index["count"], index["damaged"], index["captioned"]) == (10, 0, 0)


def test_pictures_can_be_left_out_and_one_side_gives_one_grid(tokenizer, photos, tmp_path):
    prepare(tokenizer, SHA, [photos], tmp_path / "out", PrepareConfig(sides=(48,), per_shard=20, pictures=False))
    got = files(tmp_path / "out" / "tokens-00000.tar")
    assert {name.split(".", 1)[1] for name in got} == {"target.npy", "json"}
    assert tokens_of(got["000000000.target.npy"]).shape == (6, 6)


def test_captions_come_from_an_annotation_file_by_file_name_and_else_from_the_shard(tokenizer, photos, tmp_path):
    blob = sorted(photos.iterdir())[0].read_bytes()
    note = {"caption": ["Two  Red Boats."], "kind": "art", "source": "there", "licence": "CC0", "unknown": 1}
    write_shard(tmp_path / "a.tar", [("x/000", {"png": blob, "json": json.dumps(note).encode()})])
    notes = {
        "images": [{"id": 7, "file_name": "003.png"}, {"id": 8, "file_name": "elsewhere.png"}],
        "annotations": [{"image_id": 7, "caption": "A Dog. "}, {"image_id": 7, "caption": "a dog runs"}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(notes))
    config = PrepareConfig(sides=(32, 64), per_shard=20)
    index = prepare(tokenizer, SHA, [photos, tmp_path / "a.tar"], tmp_path / "out", config, tmp_path / "captions.json")
    assert index["captioned"] == 2
    got = {
        int(name.split(".")[0]): json.loads(b)
        for name, b in files(tmp_path / "out" / "tokens-00000.tar").items()
        if "json" in name
    }
    assert got[3]["caption"] == ["a dog", "a dog runs"]
    assert got[4]["caption"] == []
    want = {"caption": ["two red boats"], "kind": "art", "source": "there", "licence": "CC0", "file": "a.tar/x/000.png"}
    assert got[10] == want


def test_an_annotation_file_of_other_pictures_or_of_another_form_is_refused(tokenizer, photos, tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "no.png"}], "annotations": []}))
    with pytest.raises(ValueError, match="none of the 4 pictures of tokens-00000.tar is named in"):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL, path)
    assert not list((tmp_path / "out").glob("[!.]*"))
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match="not an annotation file in COCO's form"):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL, path)


def test_a_damaged_picture_is_left_out_with_a_warning_and_counted(tokenizer, photos, tmp_path, caplog):
    (photos / "002.png").write_bytes((photos / "002.png").read_bytes()[:60])
    index = prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    assert (index["count"], index["damaged"]) == (9, 1)
    assert "002.png is damaged or cut off" in caplog.text
    assert "000000002.json" not in files(tmp_path / "out" / "tokens-00000.tar")
    assert len(PreparedTokens(tmp_path / "out", SHA, (4, 8))) == 9


def test_only_damaged_pictures_are_refused(tokenizer, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of the 1 pictures can be read"):
        prepare(tokenizer, SHA, [tmp_path / "a.png"], tmp_path / "out", SMALL)
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_run_killed_between_shards_goes_on_with_those_that_are_missing(tokenizer, photos, tmp_path, monkeypatch):
    prepare(tokenizer, SHA, [photos], tmp_path / "whole", SMALL)
    out, write = tmp_path / "out", preparing.write_shard

    def die_in_the_second(path, samples):
        if path.name == "tokens-00001.tar":
            next(iter(samples))
            path.with_name(temporary_name(path.name, 77)).write_bytes(b"half")  # what a killed process leaves
            raise KeyboardInterrupt
        return write(path, samples)

    monkeypatch.setattr(preparing, "write_shard", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        prepare(tokenizer, SHA, [photos], out, SMALL)
    assert not (out / "index.json").exists()
    with pytest.raises(ValueError, match="is not finished"):
        PreparedTokens(out, SHA, (4, 8))
    made = []
    monkeypatch.setattr(preparing, "write_shard", lambda path, samples: (made.append(path.name), write(path, samples))[1])
    prepare(tokenizer, SHA, [photos], out, SMALL)
    assert made == ["tokens-00001.tar", "tokens-00002.tar"]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sides": (16, 32)}, r"made with sides \[32, 64\] \(now \[16, 32\]\).*give the same options, or another --output"),
        ({"per_shard": 5}, r"per_shard 4 \(now 5\)"),
        ({"pictures": False}, r"pictures True \(now False\)"),
    ],
)
def test_other_options_are_refused(tokenizer, photos, tmp_path, change, says):
    prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match=says):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", PrepareConfig(**{**vars(SMALL), **change}))


def test_a_picture_changed_in_place_is_noticed_and_a_copied_folder_is_not(tokenizer, photos, tmp_path):
    prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    shards = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.tar")}
    for path in photos.glob("*.png"):
        os.utime(path, (1, 1))  # as of a copy
    prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    assert {path: path.read_bytes() for path in shards} == shards
    data = bytearray((photos / "003.png").read_bytes())
    data[-20] ^= 1  # another picture of the same size
    (photos / "003.png").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"tokens-0000\d.tar was made of pictures that have changed since: give another --output"
    ):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)


def test_other_pictures_and_another_tokenizer_are_refused(tokenizer, photos, tmp_path):
    prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match=f"tokenizer {SHA}"):
        prepare(tokenizer, "a" * 64, [photos], tmp_path / "out", SMALL)
    for path in sorted(photos.iterdir())[8:]:
        path.unlink()
    with pytest.raises(ValueError, match="has 3 shards, and these pictures make 2"):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)
    sorted(photos.iterdir())[5].unlink()
    with pytest.raises(ValueError, match=r"tokens-00001.tar was made of other pictures: give the same --images"):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("sides", "says"), [((30,), "multiples of 8"), ((32, 48), "twice the first"), ((8, 16, 32), "one side or two")]
)
def test_impossible_sides_are_refused(tokenizer, photos, tmp_path, sides, says):
    with pytest.raises(ValueError, match=says):
        prepare(tokenizer, SHA, [photos], tmp_path / "out", PrepareConfig(sides=sides))


def test_processes_share_the_shards_and_the_last_one_writes_the_index(tokenizer, photos, tmp_path):
    prepare(tokenizer, SHA, [photos], tmp_path / "alone", SMALL)
    out = tmp_path / "out"
    first = prepare(tokenizer, SHA, [photos], out, SMALL, share=(1, 2))
    assert first["missing"] == 2
    assert sorted(p.name for p in out.glob("*.tar")) == ["tokens-00001.tar"]
    assert not (out / "index.json").exists()
    assert prepare(tokenizer, SHA, [photos], out, SMALL, share=(0, 2))["missing"] == 0
    assert {p.name: p.read_bytes() for p in out.glob("[!.]*")} == {
        p.name: p.read_bytes() for p in (tmp_path / "alone").glob("[!.]*")
    }


def test_rank_and_world_are_those_of_the_environment(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rank_and_world() == (3, 4)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ValueError, match="RANK '4' and WORLD_SIZE '4' do not fit"):
        rank_and_world()


@pytest.mark.parametrize("packed", ["a.tar", "a.tar.gz"])
def test_pictures_are_read_with_what_their_shard_says_of_them(photos, tmp_path, packed):
    plain = tmp_path / "plain.tar"
    note = {"caption": ["a dog"], "kind": "art", "style": "fauvism", "source": "s", "content": "c"}
    blobs = [path.read_bytes() for path in sorted(photos.iterdir())]
    write_shard(plain, [(f"deep/{i:03d}", {"png": blob, "json": json.dumps(note).encode()}) for i, blob in enumerate(blobs)])
    path = tmp_path / "in" / packed
    path.parent.mkdir()
    with tarfile.open(plain) as source, tarfile.open(path, "w:gz" if packed.endswith("gz") else "w") as tar:
        for member in sorted(source.getmembers(), key=lambda m: m.name.split(".")[::-1]):  # all notes, then all pictures
            tar.addfile(member, source.extractfile(member))
    said = {"captions": ("a dog",), "kind": "art", "style": "fauvism", "source": "s", "content": "c"}
    packed_ones = [Picture(f"deep/{i:03d}", blob, **said) for i, blob in enumerate(blobs)]
    plain_ones = [Picture(f"{i:03d}.png", blob, source=photos.name) for i, blob in enumerate(blobs)]
    assert read_pictures([path, photos]) == packed_ones + plain_ones


def test_folders_in_folders_are_read_in_the_order_of_their_paths(photos, tmp_path):
    names = ["a/z.png", "a.png", "b/c/d.png", "b/e.png", "f.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "000.png", tmp_path / "in" / name)
    assert [p.key for p in read_pictures([tmp_path / "in"])] == names


def test_listing_pictures_reads_none_of_them(photos, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    assert len(list(entries([photos]))) == 10


def test_what_holds_no_picture_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    for name, says in (("empty", "holds no picture"), ("text", "neither a picture"), ("gone", "does not exist")):
        with pytest.raises(ValueError, match=says):
            list(entries([tmp_path / name]))


def test_prepared_shards_are_pictures_with_captions_for_tuning(tokenizer, photos, tmp_path):
    notes = {
        "images": [{"id": i, "file_name": f"{i:03d}.png"} for i in range(10)],
        "annotations": [{"image_id": i, "caption": f"Thing {i}."} for i in range(10)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(notes))
    prepare(tokenizer, SHA, [photos], tmp_path / "out", SMALL, tmp_path / "captions.json")
    got = read_pictures([tmp_path / "out"])
    assert [p.captions for p in got] == [(f"thing {i}",) for i in range(10)]
    assert all(p.size == (64, 64) for p in got)


def written(folder: Path, counts: list[int], sides: tuple[int, ...] = (32, 64)) -> Path:
    """Shards of numbered tokens: every token of a sample is its number."""
    folder.mkdir()
    number, shards = 0, []
    for k, count in enumerate(counts):
        samples = []
        for _ in range(count):
            names = ("source", "target")[-len(sides) :]
            grids = {f"{n}.npy": np.full((s // 8, s // 8), number, np.uint16) for n, s in zip(names, sides, strict=True)}
            samples.append((f"{number:09d}", {name: preparing._npy(grid) for name, grid in grids.items()}))
            number += 1
        write_shard(folder / f"tokens-{k:05d}.tar", samples)
        shards.append({"name": f"tokens-{k:05d}.tar", "count": count})
    index = {
        "format": preparing.TOKENS_FORMAT,
        "tokenizer": SHA,
        "vocab_size": 512,
        "downsample": 8,
        "sides": list(sides),
        "shards": shards,
    }
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def numbers(stream: PreparedTokens, step: int, size: int, seed: int) -> list[int]:
    sources, targets = stream.batch(step, size, seed)
    assert np.array_equal(sources[:, 0, 0], targets[:, 0, 0])
    return sources[:, 0, 0].tolist()


def test_the_stream_has_each_sample_once_an_epoch_in_an_order_of_its_own(tmp_path):
    folder = written(tmp_path / "out", [7, 3, 0, 5, 9, 4, 6, 8])
    stream = PreparedTokens(folder, SHA, (4, 8))
    assert len(stream) == 42
    seen = [number for step in range(12) for number in numbers(stream, step, 7, seed=1)]
    first, second = seen[:42], seen[42:]
    assert sorted(first) == sorted(second) == list(range(42))
    assert first != second
    assert first != sorted(first)


def test_a_step_of_the_stream_is_the_same_whatever_was_asked_before(tmp_path):
    folder = written(tmp_path / "out", [4] * 10)
    stream = PreparedTokens(folder, SHA, (4, 8))
    whole = [numbers(stream, step, 6, seed=3) for step in range(14)]
    for step in (13, 2, 7):
        assert numbers(PreparedTokens(folder, SHA, (4, 8)), step, 6, seed=3) == whole[step]
    assert [numbers(stream, step, 6, seed=4) for step in range(14)] != whole
    halves = [numbers(stream, 2 * step + k, 3, seed=3) for step in range(14) for k in (0, 1)]
    assert [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)] == whole


def test_no_more_than_two_groups_of_shards_are_held(tmp_path):
    stream = PreparedTokens(written(tmp_path / "out", [2] * 30), SHA, (4, 8))
    for step in range(20):
        stream.batch(step, 6, 0)
        assert sum(len(future.result()[0]) for future in stream._held.values()) <= 2 * 4 * 2


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": {}},
        {"vocab_size": 1e3},
        {"downsample": 0},
        {"sides": []},
        {"sides": "128"},
        {"shards": []},
        {"shards": [{"name": "../tokens-00000.tar", "count": 2}]},
        {"shards": [{"name": "tokens-00000.tar", "count": -2}]},
        {"shards": [{"name": "tokens-00000.tar", "count": 0}]},
    ],
)
def test_an_index_that_cannot_be_is_refused(tmp_path, change):
    folder = written(tmp_path / "out", [2])
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(ValueError, match=r"index.json cannot be read .*prepare the tokens anew"):
        PreparedTokens(folder, SHA, (4, 8))


def test_a_grid_that_lies_about_its_shape_is_refused_before_memory_is_reserved():
    stream = io.BytesIO()
    np.save(stream, np.arange(16, dtype=np.uint16).reshape(4, 4))
    data = stream.getvalue()
    assert read_grid(data, 4).tolist() == np.arange(16).reshape(4, 4).tolist()
    for bad in (data.replace(b"(4, 4)", b"(4, 8)"), data.replace(b"4, 4", b"9**9"), data.replace(b"{", b"("), data[:-1], b""):
        with pytest.raises(ValueError, match="a grid of tokens"):
            read_grid(bad, 4)


@pytest.mark.parametrize("caption", [3, None, ["a"], {}])
def test_captions_that_are_no_texts_are_refused(tmp_path, caption):
    notes = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": caption}]}
    (tmp_path / "captions.json").write_text(json.dumps(notes))
    with pytest.raises(ValueError, match="is no text.*annotations"):
        read_captions(tmp_path / "captions.json")


@pytest.mark.parametrize(
    ("sha", "grids", "says"),
    [
        ("a" * 64, (4, 8), "tokens of another tokenizer"),
        (SHA, (8, 16), "prepare with --sides 64 128"),
        (SHA, (16, 16), "upscale 1 and grid 16 need 128"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tmp_path, sha, grids, says):
    with pytest.raises(ValueError, match=says):
        PreparedTokens(written(tmp_path / "out", [2]), sha, grids)


def test_a_folder_without_tokens_and_a_damaged_shard_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no prepared tokens"):
        PreparedTokens(tmp_path, SHA, (4, 8))
    folder = written(tmp_path / "out", [2])
    path = folder / "tokens-00000.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="tokens-00000.tar"):
        PreparedTokens(folder, SHA, (4, 8)).batch(0, 1, 0)
    (folder / "index.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="index.json cannot be read"):
        PreparedTokens(folder, SHA, (4, 8))


def test_a_stream_is_known_by_its_index(tmp_path):
    folder = written(tmp_path / "out", [2])
    assert PreparedTokens(folder, SHA, (4, 8)).sha256 == hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()


def test_a_picture_is_decoded_as_training_decodes_it(tokenizer, tmp_path):
    stream = io.BytesIO()
    Image.new("RGBA", (64, 40), (255, 0, 0, 0)).save(stream, "PNG")
    (tmp_path / "clear.png").write_bytes(stream.getvalue())
    prepare(tokenizer, SHA, [tmp_path / "clear.png"], tmp_path / "out", SMALL)
    image = Picture("clear", stream.getvalue()).open()
    want = tokenizer.encode(to_tensor([np.asarray(centre_crop(image, 64))]))[0]
    got = tokens_of(files(tmp_path / "out" / "tokens-00000.tar")["000000000.target.npy"])
    assert torch.equal(torch.from_numpy(got.astype(np.int64)), want)
