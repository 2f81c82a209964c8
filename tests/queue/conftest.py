"""Fake servers, and the command over a folder of photos."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_comfyui import Fake
from queue_shell import Shell

from stylerdalle.queue import batch


@pytest.fixture
def fake() -> Iterator[Callable[..., Fake]]:
    made: list[Fake] = []

    def make(**options: Any) -> Fake:
        made.append(Fake(**options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(batch, "SERVER_PAUSE", (0.05, 0.1))
    shell = Shell(tmp_path, capsys)
    shell.photos("a.png", "b.jpg", "below/c.png")
    return shell
