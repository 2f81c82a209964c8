"""Bad input of `stylerdalle queue`: one sentence, exit code 2, nothing written."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fake_comfyui import WORKFLOW, write_workflow

from stylerdalle.cli.main import main
from stylerdalle.queue.server import find_servers

NOBODY = "http://127.0.0.1:9"  # nothing listens on this port


class Other(BaseHTTPRequestHandler):
    """A web server without pages."""

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass  # it would be on stderr


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """refused("--set", "x=1") -> the sentence."""
    monkeypatch.chdir(tmp_path)
    write_workflow(tmp_path / "w.json")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("pixels")

    def run(*words, **changes):
        options = {"server": NOBODY, "workflow": "w.json", "images": "photos", "output": "out", **changes}
        before = sorted(tmp_path.rglob("*"))
        code = main(["queue", *(word for key, value in options.items() for word in (f"--{key}", value)), *words])
        said = capsys.readouterr().err
        assert code == 2 and said.count("\n") == 1, said
        assert sorted(tmp_path.rglob("*")) == before
        return said

    return run


def test_a_server_that_is_not_there(refused):
    assert f"{NOBODY} does not answer (Connection refused): is ComfyUI running there?" in refused()


def test_a_server_that_is_no_comfyui(refused):
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        assert "is not a ComfyUI (it answers /system_stats with 404)" in refused(server=f"127.0.0.1:{other.server_port}")
        other.shutdown()


def test_several_servers_that_are_not_there(refused):
    said = refused("--server", "127.0.0.1:11")
    assert "none of 2 servers can be used" in said and NOBODY in said and "http://127.0.0.1:11" in said


@pytest.mark.parametrize("server", ["", "ftp://host", "a b", "http://", "host:99999", "http://host/?x=1"])
def test_what_is_no_address(refused, server):
    assert "is not an address" in refused(server=server)


def test_addresses_are_completed_and_each_counts_once():
    urls = ["10.0.0.1:8188", "http://10.0.0.1:8188/", "HTTPS://farm/comfy/", "http://[::1]:8188"]
    assert find_servers(urls) == ["http://10.0.0.1:8188", "https://farm/comfy", "http://[::1]:8188"]


def test_no_photos(refused, tmp_path):
    assert "is not a folder" in refused(images="none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "._a.png").write_text("what macOS leaves")
    assert "holds no photo" in refused(images="empty")


def test_outputs_among_the_photos(refused):
    assert "in the folder of photos" in refused(output="photos/out")
    assert "in the folder of photos" in refused(output="photos")


def test_an_output_folder_with_other_files(refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "holds files of no batch" in refused()
    assert "is not a folder" in refused(output="w.json")


def test_an_output_folder_of_another_workflow(refused, tmp_path):
    head = {"format": "stylerdalle-queue/1", "photo_node": "2", "workflow": {"2": WORKFLOW["2"]}}
    prompt = {"picture": "a.png", "stem": "a", "file": [0, 0], "server": NOBODY, "prompt": "id"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "queue.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(prompt)}\n")
    assert "was begun with another workflow" in refused()


def test_options_out_of_range(refused):
    assert "tries is 0" in refused("--tries", "0")
    assert "poll" in refused("--poll", "0")
