"""Passwords and tokens of servers: where they come from, and that they are printed nowhere.

A file given with --auth, or the environment variable STYLERDALLE_AUTH with the same text, has one line a server:

    Bearer TOKEN                            for every server
    http://host:8188 Basic USER:PASSWORD    for this server

A server's address may hold them too, http://USER:PASSWORD@host:8188; but other users of the machine can see command lines.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

VARIABLE = "STYLERDALLE_AUTH"
HIDDEN = "***"
SHORTEST = 4  # letters of a secret that `hide` looks for: shorter ones are parts of other words
# inputs of workflows whose texts are secrets
SECRET_INPUT = re.compile(
    r"passw|secret|api_?key|access_?key|credential|^(auth|bearer|access)?_?token$|authorization", re.IGNORECASE
)


class Secrets:
    """What is to be hidden, and the Authorization header of each server."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}  # by server URL; "": of every server
        self.texts: set[str] = set()

    def add(self, url: str, kind: str, value: str) -> None:
        """Keep the secret of a server: `Bearer` and a token, or `Basic` and USER:PASSWORD."""
        self.texts.add(value)
        if kind.lower() == "basic":
            self.texts.add(value.partition(":")[2])
            value = base64.b64encode(value.encode()).decode()
            self.texts.add(value)
        self.headers[url] = f"{kind.capitalize()} {value}"

    def header(self, url: str) -> dict[str, str]:
        """The headers of requests to a server."""
        found = self.headers.get(url) or self.headers.get("")
        return {"Authorization": found} if found else {}

    def hide(self, text: str) -> str:
        """The text, each secret in it replaced by ***."""
        for secret in sorted(self.texts, key=len, reverse=True):
            if len(secret) >= SHORTEST:
                text = text.replace(secret, HIDDEN)
        return text

    def hide_all(self, value: Any) -> Any:
        """A JSON value with every text in it hidden as by `hide`."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, list):
            return [self.hide_all(item) for item in value]
        return {key: self.hide_all(item) for key, item in value.items()} if isinstance(value, dict) else value


def read_secrets(path: Path | None = None) -> Secrets:
    """The secrets of --auth FILE, or else of the environment.

    Raises:
        ValueError: the file cannot be read, or a line is of another form. The message does not show the line.
    """
    secrets, where = Secrets(), str(path or VARIABLE)
    try:
        text = path.read_text(encoding="utf-8-sig") if path else os.environ.get(VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is no text'}): see --auth") from error
    for number, line in enumerate(text.splitlines(), 1):
        match = re.fullmatch(r"(?:(\S+://\S+)\s+)?(Bearer|Basic)\s+(\S.*?)\s*", line.strip(), re.IGNORECASE)
        if line.strip() and not match:
            raise ValueError(f"{where}, line {number}, is not of the form [URL] Bearer TOKEN or [URL] Basic USER:PASSWORD")
        if match:
            secrets.add((match[1] or "").rstrip("/"), match[2], match[3])
    return secrets


def take_userinfo(url: str, secrets: Secrets) -> str:
    """A server's address without USER:PASSWORD@, which goes to the secrets."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return url
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    secrets.add(plain, "Basic", f"{unquote(parts.username or '')}:{unquote(parts.password or '')}")
    return plain


def without_secrets(workflow: Mapping[str, Mapping[str, Any]], secrets: Secrets) -> dict[str, dict[str, Any]]:
    """A workflow as journal and report may keep it: the texts of inputs such as `api_key` are ***. They become secrets."""
    out = {}
    for node_id, node in workflow.items():
        inputs = dict(node["inputs"])
        for name, value in inputs.items():
            if isinstance(value, str) and value and SECRET_INPUT.search(name):
                secrets.texts.add(value)
                inputs[name] = HIDDEN
        out[node_id] = {**node, "inputs": inputs}
    return out
