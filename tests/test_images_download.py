"""Images from a server on this machine, well-behaved and otherwise."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dff.errors import ImageError, UsageError
from dff.images import Picture
from dff.images import read_image as read_public

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
_file = io.BytesIO()
Image.fromarray(PIXELS).save(_file, "PNG")
PNG = _file.getvalue()


def read_image(url: str, **options: Any) -> Picture:
    """Read from the server on this machine."""
    return read_public(url, allow_private=True, **options)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path: an image, or one of the ways in which servers misbehave."""

    over: threading.Event
    agents: list[str]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.agents.append(self.headers["User-Agent"])
        path = self.path.partition("?")[0]
        if path.startswith("/hop/"):
            left = int(path[5:])
            self.send_response(302)
            self.send_header("Location", f"/hop/{left - 1}" if left else "/cat.png")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/silent":
            self.over.wait(5)
        elif path == "/drip":
            self.answer(b"", length=10**6)
            while not self.over.wait(0.02):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    break
        elif path == "/endless":
            self.answer(b"")
            try:
                while not self.over.is_set():
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass
        elif path == "/half":
            self.answer(PNG[: len(PNG) // 2], length=len(PNG))
        elif path == "/announced":
            self.answer(b"", length=10**9)
        elif path == "/page.jpg":
            self.answer(b"<!doctype html><title>cookies?</title>", kind="image/jpeg")
        elif path == "/empty.jpg":
            self.answer(b"")
        elif path == "/missing.jpg":
            self.send_error(404)
        elif path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        else:
            self.answer(PNG, length=len(PNG), kind="text/plain")

    def answer(self, body: bytes, length: int | None = None, kind: str = "image/png") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    Handler.over, Handler.agents = threading.Event(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        Handler.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a proxy of the environment out of the way."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_an_image_whatever_its_declared_type(server: str) -> None:
    picture = read_image(f"{server}/folder/my%20cat.png?size=large#top")
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.name == "my cat"
    assert "deep-feature-factorization" in Handler.agents[-1]


def test_names_stay_fit_for_files(server: str) -> None:
    assert read_image(f"{server}/").name == "image"
    assert read_image(f"{server}/..%2F..%2Fetc%2Fcat.png").name == "cat"
    assert read_image(f"{server}/a%5Cb%00c.png").name == "bc"
    assert read_image(f"HTTP{server[4:]}/cat.png").name == "cat"


def test_few_redirects_are_followed_and_many_are_not(server: str) -> None:
    np.testing.assert_array_equal(read_image(f"{server}/hop/4").pixels, PIXELS)
    with pytest.raises(ImageError, match="redirects more than 5 times"):
        read_image(f"{server}/hop/100")


def test_redirects_do_not_leave_http(server: str) -> None:
    with pytest.raises(ImageError, match="cannot fetch"):
        read_image(f"{server}/elsewhere")


@pytest.mark.parametrize("path", ["silent", "drip"])
def test_the_deadline_is_for_all_of_it(server: str, path: str) -> None:
    with pytest.raises(ImageError, match=r"timed out after 0.3 s"):
        read_image(f"{server}/{path}", timeout=0.3)


@pytest.mark.parametrize("path", ["endless", "announced"])
def test_the_size_limit(server: str, path: str) -> None:
    with pytest.raises(ImageError, match=r"over the limit of 0.3 MB"):
        read_image(f"{server}/{path}", max_bytes=300_000, timeout=5)


def test_a_download_may_reach_its_limit_exactly(server: str) -> None:
    assert read_image(f"{server}/cat.png", max_bytes=len(PNG)).width == 30
    with pytest.raises(ImageError, match="over the limit"):
        read_image(f"{server}/cat.png", max_bytes=len(PNG) - 1)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.jpg", "the server answered 404 Not Found"),
        ("page.jpg", "page.jpg: it is an HTML page; name the image itself"),
        ("empty.jpg", "empty.jpg: it is empty"),
        ("half", "cannot fetch .*half: .*(after|bytes)"),
    ],
)
def test_answers_that_are_no_image(server: str, path: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(f"{server}/{path}")


def test_no_server_at_all() -> None:
    with pytest.raises(ImageError, match=r"no connection.*refused"):
        read_image("http://127.0.0.1:9/cat.png", timeout=5)
    with pytest.raises(ImageError, match="cannot fetch http://"):
        read_image("http://", timeout=5)


def test_messages_hold_no_password(server: str) -> None:
    address = server.replace("//", "//user:secret@")
    with pytest.raises(ImageError, match="404") as caught:
        read_image(f"{address}/missing.jpg")
    assert "secret" not in str(caught.value)


def test_limits_must_be_positive() -> None:
    with pytest.raises(UsageError, match="timeout and max_bytes must be positive"):
        read_image("http://127.0.0.1:9/cat.png", timeout=0)
