"""Folders as people have them."""

import os
import sys
import unicodedata

import pytest
from images.test_decode import HEIC, ramp, saved

from stylerdalle.images.folders import photos_below
from stylerdalle.learn.pairs import read_pairs
from stylerdalle.learn.pictures import split_validation
from stylerdalle.learn.shards import write_shard
from stylerdalle.learn.sources import checked, read_pictures
from stylerdalle.queue.journal import find_photos

PHOTO = saved(ramp(), "JPEG", quality=95)


def names(folder):
    return [name for name, _ in photos_below(folder)]


def test_hidden_and_system_files_are_passed_over_in_silence(tmp_path, caplog):
    for name in (
        *("a.jpg", "UPPER.JPG", "day 2/b.jpg", ".DS_Store", "._a.jpg", ".thumbs/t.jpg", "Thumbs.db", "desktop.ini"),
        *("__MACOSX/a.jpg", "@eaDir/a.jpg", "$RECYCLE.BIN/a.jpg", "day 2/._b.jpg"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PHOTO)
    assert names(tmp_path) == ["UPPER.JPG", "a.jpg", "day 2/b.jpg"]
    assert [picture.key for picture in checked(read_pictures([tmp_path]))] == names(tmp_path)
    assert [photo.name for photo in find_photos(tmp_path, tmp_path.parent / "out")] == names(tmp_path)
    assert caplog.text == ""


def test_other_files_are_counted_and_named_once(tmp_path, caplog):
    for name, data in {"a.jpg": PHOTO, "IMG_1.HEIC": HEIC, "IMG_2.heic": HEIC, "notes.txt": b"", "sub/README": b""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert names(tmp_path) == ["a.jpg"]
    (record,) = caplog.records
    assert "passed over, not pictures: 2 .heic, 1 .txt, 1 without a suffix" in record.getMessage()
    assert "IMG_1.HEIC, IMG_2.heic, notes.txt, ..." in record.getMessage()
    assert "HEIC is not read, save it as JPEG" in record.getMessage()


def test_dead_links_loops_pipes_and_folders_with_a_pictures_name_stop_nothing(tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    (tmp_path / "dead.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "linked.jpg").symlink_to("a.jpg")
    (tmp_path / "deep.jpg").mkdir()
    (tmp_path / "deep.jpg" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names(tmp_path) == ["a.jpg", "linked.jpg"]
    assert len(read_pictures([tmp_path])) == 2
    assert "3 .jpg, 1 without a suffix" in caplog.text and "dead.jpg" in caplog.text


def test_bad_pictures_are_named_at_the_start_and_left_out(tmp_path, caplog):
    for name, data in {
        "good.jpg": PHOTO, "cut.jpg": PHOTO[:-60], "page.jpg": b"<html>", "zero.jpg": b"", "phone.jpg": HEIC
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    assert [picture.key for picture in checked(read_pictures([tmp_path]))] == ["good.jpg"]
    left = [record.getMessage() for record in caplog.records]
    assert [line.split()[2] for line in left] == ["cut.jpg", "page.jpg", "phone.jpg", "zero.jpg"]


@pytest.mark.parametrize("suffix", ["tif", "bmp", "jfif", "gif", "avif", "JPE"])
def test_every_suffix_of_a_picture_is_found_by_trainings_and_queue(tmp_path, suffix):
    kind = {"jfif": "JPEG", "JPE": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    (tmp_path / f"a.{suffix}").write_bytes(saved(ramp(), kind))
    (picture,) = checked(read_pictures([tmp_path]))
    assert picture.open().size == (16, 16)
    assert checked(read_pictures([tmp_path / f"a.{suffix}"]))[0].key == picture.key
    assert len(find_photos(tmp_path, tmp_path.parent / "out")) == 1


def test_names_of_macos_are_the_names_of_other_systems(tmp_path):
    composed, apart = "é.jpg", unicodedata.normalize("NFD", "é.jpg")
    for folder, name in (("photos", composed), ("styled", apart)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(PHOTO)
    assert {read_pictures([tmp_path / folder])[0].key for folder in ("photos", "styled")} == {composed}
    assert read_pairs(tmp_path, 16, 2)[0].shape == (2, 3, 16, 16)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_that_are_not_utf_8_are_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(PHOTO)
    (picture,) = checked(read_pictures([tmp_path]))
    assert picture.key == name
    assert sum(map(len, split_validation([picture]))) == 1


def test_a_shard_with_a_damaged_note_and_one_of_macos_stop_nothing(tmp_path, caplog):
    write_shard(tmp_path / "a.tar", [("0", {"jpg": PHOTO, "json": b"{cut"}), ("1", {"jpg": PHOTO})])
    (tmp_path / "._a.tar").write_bytes(b"Mac OS X")
    assert [picture.key for picture in read_pictures([tmp_path])] == ["1"]
    assert "0.jpg in" in caplog.text and "damaged" in caplog.text
