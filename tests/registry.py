"""What the Comfy Registry asks of pyproject.toml (https://docs.comfy.org/registry/specifications), and what is missing.

Usage:

    python tests/registry.py     # one line for each field that has to be filled in before publishing; exit code 1 if there is one
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")
# path of a field: the form of its value, and what it is
FIELDS = {
    "project.name": (NAME, "the pack's id in the registry, at most 100 characters"),
    "project.version": (re.compile(r"\d+\.\d+\.\d+"), "MAJOR.MINOR.PATCH"),
    "project.description": (re.compile(r".{20,}"), "one sentence"),
    "project.license": (re.compile(r".+"), "an SPDX name"),
    "project.requires-python": (re.compile(r">=3\.\d+"), "the oldest Python"),
    "project.classifiers": (re.compile(r".*Operating System :: .*"), "operating systems and GPUs"),
    "project.urls.Repository": (re.compile(r"https://\S+"), "the address of the public repository"),
    "tool.comfy.PublisherId": (re.compile(r"[a-z0-9][a-z0-9-]*"), "the publisher's id, from https://registry.comfy.org"),
    "tool.comfy.DisplayName": (re.compile(r".+"), "the name that people read"),
    "tool.comfy.Icon": (re.compile(r"https://\S+"), "the address of docs/icon.png"),
    "tool.comfy.Banner": (re.compile(r"https://\S+"), "the address of docs/banner.jpg"),
    "tool.comfy.requires-comfyui": (re.compile(r">=\d+\.\d+\.\d+"), "the oldest tested ComfyUI"),
}


def load(path: Path) -> dict[str, Any]:
    try:
        import tomllib as toml
    except ModuleNotFoundError:  # Python 3.10
        import tomli as toml
    found: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    return found


def missing(settings: dict[str, Any]) -> dict[str, str]:
    """The fields that are absent or have another form, each with what it should be."""
    found = {}
    for path, (form, meaning) in FIELDS.items():
        value: Any = settings
        for part in path.split("."):
            value = value.get(part, {}) if isinstance(value, dict) else {}
        text = "; ".join(value) if isinstance(value, list) else value if isinstance(value, str) else ""
        if not form.fullmatch(text) or (path == "project.name" and len(text) > 100):
            found[path] = meaning
    return found


if __name__ == "__main__":
    lacking = missing(load(ROOT / "pyproject.toml"))
    for path, meaning in lacking.items():
        print(f"{path}: {meaning}")
    sys.exit(bool(lacking))
