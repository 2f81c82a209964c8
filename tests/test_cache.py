"""One load for everyone, until the file changes."""

import os
from pathlib import Path

import pytest
import torch

from stylerdalle import cache

CPU = torch.device("cpu")


class Loader:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path: Path, device: torch.device, dtype: torch.dtype) -> object:
        self.calls += 1
        return object()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(b"one")
    return path


def test_the_same_file_is_loaded_once(file):
    loader = Loader()
    assert cache.load(loader, file, CPU, torch.float32) is cache.load(loader, str(file), CPU, torch.float32)
    assert loader.calls == 1


def test_another_dtype_is_another_load(file):
    loader = Loader()
    assert cache.load(loader, file, CPU, torch.float32) is not cache.load(loader, file, CPU, torch.bfloat16)
    assert loader.calls == 2


def test_a_changed_file_is_loaded_anew_and_the_old_one_forgotten(file):
    loader = Loader()
    old = cache.load(loader, file, CPU, torch.float32)
    before = cache.size()
    file.write_bytes(b"other")
    assert cache.load(loader, file, CPU, torch.float32) is not old
    status = os.stat(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    cache.load(loader, file, CPU, torch.float32)
    assert loader.calls == 3
    assert cache.size() == before


def test_a_link_to_the_file_is_the_same_file(file, tmp_path):
    loader = Loader()
    (tmp_path / "link").symlink_to(file)
    cache.load(loader, file, CPU, torch.float32)
    cache.load(loader, tmp_path / "link", CPU, torch.float32)
    assert loader.calls == 1


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        cache.load(Loader(), tmp_path / "no", CPU, torch.float32)


def test_clearing_forgets_every_model(file, monkeypatch):
    monkeypatch.setattr(cache, "_models", {})  # those of other tests stay
    cache.load(Loader(), file, CPU, torch.float32)
    assert cache.size() == 1
    cache.clear()
    assert cache.size() == 0
