"""Downloads from a server that misbehaves: a file arrives complete and correct, or only a part that can be resumed is kept."""

import hashlib
import os
from collections import namedtuple
from pathlib import Path

import loopback
import pytest

from stylerdalle.convert import download as module
from stylerdalle.convert.download import Address, Unavailable, download

DATA = os.urandom(300_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "RETRY_PAUSE", 0)
    monkeypatch.setattr(module, "BLOCK", 1000)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    server = loopback.Server(DATA)
    yield server
    server.close()


@pytest.fixture
def part(tmp_path) -> Path:
    return tmp_path / ".fetch" / "file.part"


def arrives(part: Path, address: Address) -> None:
    assert download(address, part) == SHA
    assert part.read_bytes() == DATA


def fails(part: Path, address: Address, says: str, kept: int = 0, kind: type[ValueError] = Unavailable) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        download(address, part)
    assert type(caught.value) is kind
    assert (part.stat().st_size if part.exists() else 0) == kept
    assert kept or not os.listdir(part.parent)


def test_a_file_comes_with_its_progress(server, part):
    seen: list[tuple[int, int]] = []
    assert download(Address(f"{server.url}/a", SHA, len(DATA)), part, lambda *at: seen.append(at)) == SHA
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert server.asked == [("/a", None)]


def test_a_connection_that_breaks_is_gone_on_with_where_it_broke(server, part):
    server.acts = [loopback.breaks(100_000), loopback.breaks(50_000), loopback.good]
    arrives(part, Address(f"{server.url}/a", SHA))
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_that_was_given_up_is_gone_on_with_by_the_next_call(server, part):
    address = Address(f"{server.url}/a", SHA)
    server.acts = [loopback.breaks(100_000), loopback.breaks(0)]
    fails(part, address, "keeps breaking off.*100,000 bytes are kept", kept=100_000, kind=ValueError)
    server.acts, server.asked = [loopback.good], []
    arrives(part, address)
    assert server.asked == [("/a", "bytes=100000-")]


def test_a_download_that_was_whole_is_not_asked_for_again(server, part):
    arrives(part, Address(f"{server.url}/a", SHA))
    arrives(part, Address(f"{server.url}/a", SHA))
    assert len(server.asked) == 1


def test_a_server_that_ignores_the_range_is_taken_from_the_start(server, part):
    server.acts = [loopback.breaks(100_000), loopback.ignores_range(loopback.good)]
    arrives(part, Address(f"{server.url}/a", SHA))
    assert len(server.asked) == 2


def test_a_server_that_ignores_the_range_and_breaks_at_the_same_place_is_given_up(server, part):
    server.acts = [loopback.ignores_range(loopback.breaks(100_000))]
    fails(part, Address(f"{server.url}/a", SHA), "keeps breaking off", kept=100_000, kind=ValueError)
    assert len(server.asked) == 1 + module.TRIES - 1


def test_a_server_that_gives_another_part_is_asked_for_all(server, part):
    server.acts = [loopback.breaks(100_000), loopback.another_range, loopback.good]
    arrives(part, Address(f"{server.url}/a", SHA))
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", None]


@pytest.mark.parametrize("size", [250_000, 50_000, 300_000])
def test_a_file_that_changed_meanwhile_is_begun_anew(size, server, part):
    server.acts = [loopback.breaks(100_000), loopback.breaks(0)]
    address = Address(f"{server.url}/a")
    fails(part, address, "keeps breaking off", kept=100_000, kind=ValueError)
    server.data, server.acts = os.urandom(size), [loopback.good]
    assert download(address, part) == hashlib.sha256(server.data).hexdigest()
    assert part.read_bytes() == server.data


def test_a_file_that_changed_on_a_server_without_conditions_is_begun_anew(server, part):
    """The server honours Range but not If-Range; its headers show that the file has changed."""

    def careless(handler: loopback.Handler, data: bytes) -> None:
        del handler.headers["If-Range"]
        loopback.good(handler, data)

    address = Address(f"{server.url}/a")
    server.acts = [loopback.breaks(100_000), loopback.breaks(0)]
    fails(part, address, "keeps breaking off", kept=100_000, kind=ValueError)
    server.data, server.acts = os.urandom(300_000), [careless]
    assert download(address, part) == hashlib.sha256(server.data).hexdigest()


def test_what_is_left_of_another_address_is_not_gone_on_with(server, part):
    server.acts = [loopback.breaks(100_000), loopback.breaks(0)]
    fails(part, Address(f"{server.url}/a"), "keeps breaking off", kept=100_000, kind=ValueError)
    server.acts, server.asked = [loopback.good], []
    arrives(part, Address(f"{server.url}/b", SHA))
    assert server.asked == [("/b", None)]


def test_a_damaged_note_is_as_none(server, part):
    part.parent.mkdir()
    part.write_bytes(b"junk")
    for note in ("{", "[1]", '{"url": 7}'):
        part.with_name("file.part.json").write_text(note)
        arrives(part, Address(f"{server.url}/a", SHA))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (loopback.answers(404), "404 Not Found"),
        (loopback.answers(403), "403 Forbidden"),
        (loopback.answers(401), "401 Unauthorized"),
        (loopback.answers(204, b""), "204 No Content"),
        (loopback.web_page, "web page"),
        (loopback.cuts(200_000), "200000 bytes, sha256 .* need sha256"),
        (loopback.silent_cut(200_000), "200000 bytes, sha256"),
        (loopback.page_as_file, "35 bytes, sha256"),
        (loopback.answers(200, DATA + b"x"), "300001 bytes, sha256"),
        (loopback.answers(200, DATA[:-1] + bytes([DATA[-1] ^ 1])), "another file than the published"),
        (loopback.answers(500), "cannot be reached .*500"),
        (loopback.answers(429), "cannot be reached .*429"),
        (loopback.answers(206, DATA, Content_Range="bytes x/y"), "cannot be reached"),
        (loopback.redirects("/a"), "cannot be downloaded .*redirects"),
        (loopback.redirects("file:///etc/passwd"), "cannot be downloaded"),
    ],
)
def test_a_wrong_answer_is_refused_and_nothing_kept(act, says, server, part):
    server.acts = [act]
    fails(part, Address(f"{server.url}/a", SHA), says)


def test_a_length_that_promises_too_much_is_noticed_without_a_hash(server, part):
    server.acts = [loopback.answers(200, DATA, Content_Length=400_000)]
    fails(part, Address(f"{server.url}/a"), "keeps breaking off", kept=300_000, kind=ValueError)


def test_a_size_other_than_the_published_is_refused_before_the_download(server, part):
    fails(part, Address(f"{server.url}/a", bytes=299_999), "has 300000 bytes, but the published file 299999")


def test_a_file_without_end_is_cut_off(server, part, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 100_000)
    server.acts = [loopback.silent_cut(300_000)]
    fails(part, Address(f"{server.url}/a"), "sends more than the expected 100000 bytes")


def test_a_disk_that_is_too_small_is_noticed_before_the_download(server, part, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1000))
    fails(part, Address(f"{server.url}/a"), "0 MB free", kind=ValueError)


def test_a_busy_server_is_asked_again(server, part):
    server.acts = [loopback.answers(503), loopback.answers(429), loopback.good]
    arrives(part, Address(f"{server.url}/a", SHA))


def test_redirects_are_followed_and_the_hash_they_state_is_checked(server, part):
    said = {"X_Linked_Etag": f'"{SHA}"'}
    server.acts = [
        loopback.redirects("/real", **said),
        loopback.breaks(100_000),
        loopback.redirects("/real", **said),
        loopback.good,
    ]
    arrives(part, Address(f"{server.url}/a"))
    assert server.asked[-1] == ("/real", "bytes=100000-")
    module.discard(part)
    server.acts = [loopback.redirects("/real", X_Linked_Etag="0" * 64), loopback.good]
    fails(part, Address(f"{server.url}/a"), "need sha256 000000")


def test_hugging_face_may_be_another_host(server, part, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/mirror/")
    arrives(part, Address("https://huggingface.co/some/model/resolve/main/file.bin", SHA))
    assert server.asked == [("/mirror/some/model/resolve/main/file.bin", None)]


def test_a_proxy_of_the_environment_is_used(server, part, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    arrives(part, Address("http://weights.example/file.bin", SHA))
    assert server.asked == [("http://weights.example/file.bin", None)]


def test_a_host_that_is_not_there_is_said_in_few_words(part, monkeypatch):
    monkeypatch.setattr(module, "RETRY_PAUSE", 0)
    fails(part, Address("http://127.0.0.1:9/file"), r"http://127.0.0.1:9/file cannot be reached \(Connection refused\)$")
