"""Writing files, their names and metadata."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stylerdalle import checkpoint, storage


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), storage.replacing(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]
    with storage.replacing(path) as stream:
        stream.write(b"after")
    assert path.read_text() == "after" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_names_the_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), storage.replacing(path):
        raise OSError(28, "No space left on device")


def test_what_a_kill_has_left_is_removed_by_a_write_of_the_same_path_on_a_later_day(tmp_path: Path):
    long = "n" * 240 + ".png"
    old = [storage.temporary_name(name, 4711) for name in ("a[1]*.txt", long)]
    kept = [
        storage.temporary_name("a[1]*.txt", 4712),
        storage.temporary_name("b.txt", 4711),
        ".a[1]*.txt.mine.tmp",
        ".a[1]*.txt.1",
    ]
    for name in (*old, *kept):
        (tmp_path / name).touch()
    for name in (*old, *kept[1:]):  # the first is being written
        os.utime(tmp_path / name, (0, 0))
    for name in ("a[1]*.txt", long):
        with storage.replacing(tmp_path / name) as stream:
            stream.write(b"new")
    assert sorted(os.listdir(tmp_path)) == sorted(["a[1]*.txt", long, *kept])


def test_a_file_can_be_linked_into_its_place(tmp_path: Path):
    source, path = tmp_path / "a", tmp_path / "b"
    source.write_text("the same")
    with storage.placing(path) as temporary:
        os.link(source, temporary)
    assert path.samefile(source)


@pytest.mark.parametrize(
    ("text", "name"), [("A Van Gogh, oil!", "a-van-gogh-oil"), ("...", ""), ("x" * 50, "x" * 40), ("浮世絵 no", "浮世絵-no")]
)
def test_a_text_becomes_a_file_name(text, name):
    assert storage.slug(text) == name


def test_metadata_is_read_once_and_again_when_the_file_changes(tmp_path: Path, monkeypatch):
    path, opened = tmp_path / "a.safetensors", []
    real = storage.safe_open
    monkeypatch.setattr(storage, "safe_open", lambda *args: opened.append(args) or real(*args))
    for prompt in ("one", "two"):
        checkpoint.write(path, {"x": torch.zeros(1)}, "style", prompt=prompt)
        assert [storage.read_metadata(path)["prompt"] for _ in range(3)] == [prompt] * 3
    assert len(opened) == 2


def test_a_lock_keeps_other_processes_out_and_is_not_left_behind_by_one_that_is_killed(tmp_path):
    code = "import sys, time; from stylerdalle.storage import Lock; print(Lock(sys.argv[1]).take(), flush=True); time.sleep(60)"
    code = code.replace("print(Lock(sys.argv[1]).take()", "lock = Lock(sys.argv[1]); print(lock.take()")
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "True\n"
        lock = storage.Lock(tmp_path / "lock")
        assert not lock.take()
        other.kill()
        other.wait()
        assert lock.take() and lock.take()
        assert not storage.Lock(tmp_path / "lock").take()
        lock.release()
        assert storage.Lock(tmp_path / "lock").take()
    finally:
        other.kill()
        other.stdout.close()
        other.wait()


def test_the_longest_name_that_a_file_system_allows_is_written(tmp_path):
    path = tmp_path / ("é" * 125 + ".png")
    with storage.replacing(path) as stream:
        stream.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == [path.name]


def test_the_next_free_name_is_numbered(tmp_path):
    path = tmp_path / "a.b.txt"
    assert storage.next_free(path) == path
    path.write_text("")
    (tmp_path / "a.b-2.txt").symlink_to("nowhere")
    assert storage.next_free(path).name == "a.b-3.txt"


def test_paths_to_one_file_are_known_to_be_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("")
    (tmp_path / "link").symlink_to(path)
    os.link(path, tmp_path / "hard")
    for other in (tmp_path / "link", tmp_path / "hard", tmp_path / "b" / ".." / "a.png"):
        assert storage.same_file(other, [tmp_path / "c.png", path]) == path
    assert storage.same_file(tmp_path / "A.png", [path]) is None
    assert storage.same_file(tmp_path / "gone", [tmp_path / "gone"]) == tmp_path / "gone"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert storage.same_file(tmp_path / "E\u0301.png", [tmp_path / "\u00e9.PNG"])
