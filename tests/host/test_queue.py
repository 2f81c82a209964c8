"""Two real ComfyUI servers, one of which is killed during the batch: `stylerdalle queue` does every photo once.

`STYLERDALLE_PHOTOS=200 pytest tests/host/test_queue.py` runs it with 200 photos.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from host.server import PACK, Server
from PIL import Image
from tiny import write_bundle

from stylerdalle.cli.main import main

PHOTOS = int(os.environ.get("STYLERDALLE_PHOTOS", "24"))


@pytest.fixture
def servers(comfy: SimpleNamespace, tmp_path: Path) -> Iterator[list[Server]]:
    made = []
    try:
        for name in ("first", "second"):
            write_bundle(tmp_path / name / "models" / "stylerdalle" / "tiny")
            made.append(Server(tmp_path / name))
        for server in made:
            server.until(server.up)
        yield made
    finally:
        for server in made:
            server.kill()


def test_every_photo_is_done_once_though_a_server_is_killed(
    servers: list[Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(PHOTOS):
        Image.new("RGB", (48 + i % 50, 40), (i % 256, 128, i // 256)).save(tmp_path / "photos" / f"{i:04}.png")

    def kill_when_it_has_done_some() -> None:
        while len(list((servers[0].base / "output").glob("*.png"))) < PHOTOS // 6:
            time.sleep(0.01)
        servers[0].kill()

    killer = threading.Thread(target=kill_when_it_has_done_some, daemon=True)
    killer.start()
    urls = [word for server in servers for word in ("--server", server.url)]
    places = ["--images", str(tmp_path / "photos"), "--output", str(tmp_path / "out")]
    settings = ["--set", "1.bundle=tiny", "--set", "4.prompt=ukiyo-e"]
    command = ["queue", *urls, "--workflow", str(PACK / "workflows" / "api" / "stylize.json"), *places, *settings]
    code = main(command)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert not killer.is_alive()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {p.name: Image.open(p).size for p in (tmp_path / "out").glob("*.png")} == {
        f"{i:04}.png": (48 + i % 50, 40) for i in range(PHOTOS)
    }
    assert [row["picture"] for row in report["results"]] == [f"{i:04}.png" for i in range(PHOTOS)]
    assert all(row["error"] is None and row["seconds"] > 0 for row in report["results"])
    assert min(report["by_server"].values()) >= 2 and sum(report["by_server"].values()) == PHOTOS
    assert said.err.count("does not answer") == 1
    servers[1].kill()
    assert main(command) == 0  # nothing is left to do
