"""A real ComfyUI server in its own process, for tests over HTTP.

COMFYUI_PYTHON runs it; by default the tests' own Python. COMFYUI_PATIENCE multiplies the times that the tests wait for it, for a
busy machine.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ.get("COMFYUI_DIR", "~/ComfyUI")).expanduser()
PATIENCE = float(os.environ.get("COMFYUI_PATIENCE", "1"))
_python = os.path.expanduser(os.environ.get("COMFYUI_PYTHON", sys.executable))
PYTHON = os.path.abspath(shutil.which(_python) or _python)  # the server runs in another folder


class Server:
    """ComfyUI on a free local port, with its folders below `base` and the pack as a custom node."""

    def __init__(self, base: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / "ComfyUI-StylerDALLE"
        if not link.is_symlink():
            link.symlink_to(PACK, target_is_directory=True)
        self.base, self.log = base, base / "log.txt"
        options = ["--cpu", "--listen", "127.0.0.1", "--port", self.url.rpartition(":")[2], "--disable-api-nodes"]
        folders = ["--base-directory", str(base), "--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, str(COMFY / "main.py"), *options, *folders],
                cwd=COMFY,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )

    def __call__(self, path: str, body: Any = None) -> Any:
        """GET, or POST if there is a body -> the decoded answer."""
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE * 30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def until(self, found: Callable[[], Any], seconds: float = 120) -> Any:
        """Wait until found() is true -> its value."""
        end = time.monotonic() + PATIENCE * seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            if value := found():
                return value
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s for it in vain:\n{self.log.read_text()[-3000:]}")

    def up(self) -> bool:
        try:
            self("/system_stats")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def done(self, nodes: dict[str, Any]) -> dict[str, Any]:
        """Queue a prompt and wait until it is done -> the outputs of its nodes in the history."""
        asked = self("/prompt", {"prompt": nodes})["prompt_id"]
        status = self.until(lambda: self.ended(asked), 300)
        assert status["status_str"] == "success", self.log.read_text()
        outputs: dict[str, Any] = self(f"/history/{asked}")[asked]["outputs"]
        return outputs

    def ended(self, prompt: str) -> Any:
        """The status of a finished prompt."""
        return self(f"/history/{prompt}").get(prompt, {}).get("status")

    def status(self, key: str) -> int:
        """A number of the process's /proc/PID/status (Linux), such as VmRSS in kB or Threads."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])

    def handles(self) -> int:
        """How many files, sockets and pipes the process has open (Linux)."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
