"""Writing files, their names and metadata."""

import os
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
