"""Runs `stylerdalle queue` in tests."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_comfyui import Fake, write_workflow

from stylerdalle.cli.main import main


class Shell:
    """Runs `stylerdalle queue` over photos/ into out/."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.capsys, self.out = folder, capsys, folder / "out"
        self.workflow = write_workflow(folder / "workflow.json")

    def photos(self, *names: str) -> None:
        for name in names:
            path = self.folder / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"pixels of {name}".encode())

    def words(self, *servers: Fake | str, options: tuple[object, ...] = ()) -> list[str]:
        urls = [word for s in servers for word in ("--server", s.url if isinstance(s, Fake) else s)]
        places = ["--workflow", str(self.workflow), "--images", str(self.folder / "photos"), "--output", str(self.out)]
        return ["queue", *urls, *places, *map(str, options)]

    def __call__(self, *servers: Fake | str, options: tuple[object, ...] = ()) -> int:
        self.capsys.readouterr()
        code = main(self.words(*servers, options=("--poll", 0.05, *options)))
        self.said, self.err = self.capsys.readouterr()
        return code

    def outputs(self) -> dict[str, str]:
        """The output pictures, {output: photo}."""
        found = [p for p in self.out.rglob("*") if p.is_file() and p.suffix == ".png"]
        return {p.relative_to(self.out).as_posix(): p.read_text().removeprefix("pixels of ") for p in found}

    def report(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return facts
