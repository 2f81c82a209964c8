"""Shared by all tests: one thread (tiny models are slower on many), and one bundle of tiny models a run."""

from pathlib import Path

import pytest
import torch
from tiny import write_bundle

import stylerdalle

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: a test that changes files writes its own bundle or copies this one."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def bundle(bundle_folder: Path) -> stylerdalle.Bundle:
    return stylerdalle.load_bundle(bundle_folder, device="cpu", dtype="fp32")
