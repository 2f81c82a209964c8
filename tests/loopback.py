"""A web server on this machine that serves one file, correctly or not, for tests of downloads.

It answers each request with the next of its `acts`, and repeats the last one. `asked` records the requests.
"""

import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, data: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.acts: list[Act] = [good]
        self.asked: list[tuple[str, str | None]] = []  # path and range of each request
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        act = self.server.acts.pop(0) if len(self.server.acts) > 1 else self.server.acts[0]
        self.close_connection = True
        act(self, self.server.data)

    def send(self, status: int, body: bytes, **headers: Any) -> None:
        """Send an answer. Names of headers have _ for -; a header that is None is left out."""
        self.send_response(status)
        for name, value in {
            "Content_Length": len(body),
            "Content_Type": "application/octet-stream",
            "Connection": "close",
            **headers,
        }.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def part_asked(handler: Handler, data: bytes) -> tuple[int, int, dict[str, Any]]:
    """(status, first byte, headers) that a correct server answers with."""
    asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    if not asked or condition not in (None, etag(data)):
        return 200, 0, {"ETag": etag(data)}
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(data):
        return 416, len(data), {"Content_Range": f"bytes */{len(data)}"}
    return 206, start, {"ETag": etag(data), "Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}


def good(handler: Handler, data: bytes) -> None:
    status, start, headers = part_asked(handler, data)
    handler.send(status, data[start:], **headers)


def breaks(after: int) -> Act:
    """Announces the whole file and closes the connection after so many bytes."""

    def act(handler: Handler, data: bytes) -> None:
        status, start, headers = part_asked(handler, data)
        handler.send(status, data[start : start + after], **{**headers, "Content_Length": len(data) - start})

    return act


def ignores_range(act: Act) -> Act:
    def ignoring(handler: Handler, data: bytes) -> None:
        del handler.headers["Range"]
        act(handler, data)

    return ignoring


def cuts(length: int) -> Act:
    """Sends only a beginning, and announces no more."""
    return lambda handler, data: handler.send(200, data[:length])


def silent_cut(length: int) -> Act:
    """Sends only a beginning, without announcing a size."""
    return lambda handler, data: handler.send(200, data[:length], Content_Length=None)


def answers(status: int, body: bytes = b"no", **headers: Any) -> Act:
    return lambda handler, data: handler.send(status, body, **headers)


def web_page(handler: Handler, data: bytes) -> None:
    handler.send(200, b"<!DOCTYPE html><html>Sign in</html>", Content_Type="text/html; charset=utf-8")


def page_as_file(handler: Handler, data: bytes) -> None:
    handler.send(200, b"<!DOCTYPE html><html>Sign in</html>")


def redirects(to: str, **headers: Any) -> Act:
    return lambda handler, data: handler.send(302, b"", Location=to, **headers)


def another_range(handler: Handler, data: bytes) -> None:
    """Answers with another part than the requested one."""
    handler.send(206, data[5:], ETag=etag(data), Content_Range=f"bytes 5-{len(data) - 1}/{len(data)}")
