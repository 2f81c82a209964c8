"""Shared by all tests: one thread (tiny models are slower on many), and one bundle of tiny models a run."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import write_bundle

import stylerdalle

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands set levels and handlers for their process; here the next test goes on in it."""
    loggers = [logging.getLogger(), logging.getLogger("stylerdalle")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: a test that changes files writes its own bundle or copies this one."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def bundle(bundle_folder: Path) -> stylerdalle.Bundle:
    return stylerdalle.load_bundle(bundle_folder, device=os.environ.get("STYLERDALLE_TEST_DEVICE", "cpu"), dtype="fp32")
