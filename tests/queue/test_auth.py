"""Passwords and tokens reach their server and nothing else; what stands between us and a server is named."""

import base64
import json
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from queue_shell import Shell

from stylerdalle.queue.auth import Secrets, read_secrets, take_userinfo, without_secrets
from stylerdalle.queue.server import broken, find_servers

TOKEN = "tok-0123456789"


def everything(shell: Shell) -> str:
    """All that a batch has printed and written."""
    return shell.said + shell.err + "".join(p.read_text() for p in shell.out.rglob("*.json*"))


@pytest.mark.parametrize("way", ["file", "environment", "address"])
def test_a_password_is_sent_and_shown_nowhere(shell, fake, monkeypatch, way):
    server, password = fake(), "pass word:1"
    basic = base64.b64encode(f"me:{password}".encode()).decode()
    server.authorization = f"Basic {basic}"
    url, options = server.url, ()
    if way == "address":
        url = server.url.replace("//", "//me:pass%20word%3A1@")
    else:
        line = f"{server.url} basic me:{password}"
        (shell.folder / "auth").write_text(line)
        options = ("--auth", shell.folder / "auth") if way == "file" else ()
        monkeypatch.setenv("STYLERDALLE_AUTH", line if way == "environment" else "Bearer wrong-token")
    server.broken = {"a.png"}
    assert shell(url, options=options) == 1
    assert len(server.ran) == 3
    text = everything(shell)
    assert server.url in text
    for secret in (password, "pass%20word", basic, "me:"):
        assert secret not in text


def test_a_token_for_all_servers_and_secrets_in_a_workflow_are_hidden(shell, fake, monkeypatch):
    server = fake()
    server.authorization = f"Bearer {TOKEN}"
    monkeypatch.setenv("STYLERDALLE_AUTH", f"\nBearer {TOKEN}\n")
    nodes = json.loads(shell.workflow.read_text())
    nodes["3"]["inputs"] |= {"api_key": "sk-secret-1", "tokens": ["2", 0], "max_tokens": 5, "prompt": "secret garden"}
    shell.workflow.write_text(json.dumps(nodes))
    assert shell(server) == 0
    assert server.prompts[0]["3"]["inputs"]["api_key"] == "sk-secret-1"
    text = everything(shell)
    assert TOKEN not in text and "sk-secret-1" not in text
    assert "secret garden" in text and "max_tokens" in text
    nodes["3"]["inputs"]["api_key"] = "sk-secret-2"
    shell.workflow.write_text(json.dumps(nodes))
    shell.photos("new.png")
    assert shell(server) == 0, "another key is the same batch"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "wants a password or token, or another one (401 Unauthorized): give it with --auth"),
        (403, "wants a password or token"),
        (407, "is behind a proxy that wants a password"),
        (302, "sends to another address (302 Found): give that one, https://elsewhere, as --server"),
        (502, "is a proxy that does not reach ComfyUI (502 Bad Gateway)"),
        (500, "answers /system_stats with 500 Internal Server Error: look at that server's log"),
    ],
)
def test_what_stands_before_a_server_is_named(shell, fake, status, says):
    server = fake()
    server.answers = status
    assert shell(server) == 2
    assert says in shell.err and shell.err.count("\n") == 1 and "hidden1" not in shell.err


def test_tls_errors_say_what_they_are(shell, fake):
    assert shell(fake().url.replace("http:", "https:")) == 2
    assert "does not speak TLS as asked for" in shell.err
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_message = "self-signed certificate"
    key = aiohttp.client_reqrep.ConnectionKey("host", 443, True, True, None, None, None)
    assert "not trusted (self-signed certificate)" in broken(aiohttp.ClientConnectorCertificateError(key, error))


def test_a_server_that_hangs_delays_neither_the_start_nor_the_end(shell, fake):
    hanging, good = fake(), fake()
    hanging.hangs = True
    began = time.monotonic()
    assert shell(hanging, good) == 0
    assert time.monotonic() - began < 20  # without: 60 s, the longest time for an answer
    assert len(good.ran) == 3


def test_a_broken_photo_costs_one_try_and_one_that_failed_is_tried_elsewhere(shell, fake):
    one, two = fake(), fake()
    for server in (one, two):
        server.broken, server.fails = {"a.png"}, {"b.jpg"}
    assert shell(one, two) == 1
    ran = one.ran + two.ran
    assert (ran.count("a.png"), ran.count("b.jpg")) == (1, 2)


def test_an_address_that_is_none_is_refused_without_its_password():
    for url in ("ftp://me:hidden@host", "http://me:hidden@host:99999", "http://host/?token=hidden"):
        with pytest.raises(ValueError, match="is not an address") as caught:
            find_servers([url])
        assert "hidden" not in str(caught.value)


def test_a_line_of_another_form_is_refused_without_being_shown(tmp_path: Path):
    (tmp_path / "auth").write_text("Bearer good-token\nhidden password\n")
    with pytest.raises(ValueError, match=r"line 2, is not of the form \[URL\] Bearer TOKEN") as caught:
        read_secrets(tmp_path / "auth")
    assert "hidden" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_secrets(tmp_path / "gone")


def test_a_secret_goes_only_to_the_server_it_is_for():
    secrets = Secrets()
    assert take_userinfo("http://me:hidden@one:1", secrets) == "http://one:1"
    secrets.add("http://two:2", "bearer", TOKEN)
    assert secrets.header("http://one:1")["Authorization"].startswith("Basic ")
    assert secrets.header("http://two:2") == {"Authorization": f"Bearer {TOKEN}"}
    assert secrets.header("http://three:3") == {}
    assert secrets.hide_all({"a": [f"x {TOKEN}", 1]}) == {"a": ["x ***", 1]}
    shown = without_secrets({"1": {"inputs": {"Password": "hidden-2", "token": ["2", 0], "prompt": "a token"}}}, secrets)
    assert shown["1"]["inputs"] == {"Password": "***", "token": ["2", 0], "prompt": "a token"}
    assert secrets.hide("hidden-2") == "***"
