"""Addresses that point inwards, credentials that could leak, and servers that hold on."""

from __future__ import annotations

import base64
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dff.errors import ImageError
from dff.images import read_image
from dff.images.addresses import is_public, shown
from tests.test_images_download import PNG

LOGIN = "Basic " + base64.b64encode(b"user:secret").decode()


class Recorder(http.server.BaseHTTPRequestHandler):
    """Writes down what it is asked; /to?URL redirects there, /cookie sets one besides."""

    asked: list[tuple[str, dict[str, str]]]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        path, _, target = self.path.partition("?")
        if path == "/phrase":
            self.wfile.write(b"HTTP/1.1 500 bad\x1b[31m\x07phrase" + b"x" * 999 + b"\r\n\r\n")
            return
        if path == "/silent":
            time.sleep(0.8)
            return
        if path == "/drip":
            try:
                for _ in range(80):
                    self.wfile.write(b"H")
                    time.sleep(0.01)
            except OSError:
                return
        self.send_response(302 if target else 200)
        self.send_header("Set-Cookie", "session=secret; Path=/")
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", str(0 if target else len(PNG)))
        self.end_headers()
        self.wfile.write(b"" if target else PNG)


@pytest.fixture
def servers() -> Iterator[list[http.server.ThreadingHTTPServer]]:
    """Two servers on this machine, at two ports."""
    running = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) for _ in range(2)]
    for one in running:
        one.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::8.8.8.8",
        "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1",
        "ff02::1", "2001:db8::1", "100::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "0",
        "localhost", "LOCALHOST.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "①②⑦.0.0.1",
        "127。0。0。1", "user:secret@127.0.0.1", "8.8.8.8@127.0.0.1",
    ],
)  # fmt: skip
def test_no_spelling_reaches_this_machine(host: str, servers: list) -> None:
    port = servers[0].server_port
    with pytest.raises(ImageError, match=r"not a public address|no connection|cannot fetch") as got:
        read_image(f"http://{host}:{port}/cat.png", timeout=5)
    assert servers[0].asked == []
    assert "secret" not in str(got.value)
    if host in ("127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost"):
        assert "127.0.0.1 is not a public address; if you trust it, give --allow-private" in str(
            got.value
        )
        assert read_image(f"http://{host}:{port}/cat.png", allow_private=True).width == 30


def resolving(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> None:
    """Let the name server give the next address of a list at each question."""
    real = socket.getaddrinfo

    def lookup(host, port, *args, **options):
        if isinstance(host, str) and host.endswith(".test"):
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_names_are_resolved_once_and_held_to_it(monkeypatch, servers: list) -> None:
    port = servers[0].server_port
    resolving(monkeypatch, ["127.0.0.1"])
    with pytest.raises(ImageError, match=r"photos.test: 127.0.0.1 is not a public address"):
        read_image(f"http://photos.test:{port}/", timeout=5)
    # The first answer is public, the next would be this machine: the first is connected to.
    reached: list[str] = []

    def connect(address, *args, **options):
        reached.append(address[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("dff.images.connections.create_connection", connect)
    resolving(monkeypatch, ["93.184.215.14", "127.0.0.1"])
    with pytest.raises(ImageError, match="no connection"):
        read_image(f"http://photos.test:{port}/", timeout=5)
    assert reached == ["93.184.215.14"]
    assert servers[0].asked == []


def test_redirects_are_held_to_it_too(monkeypatch, servers: list) -> None:
    """A public address that sends on to this machine; the first hop is let through here."""
    first, second = (server.server_port for server in servers)
    allowed = iter([True])
    monkeypatch.setattr("dff.images.connections.is_public", lambda address: next(allowed, False))
    with pytest.raises(ImageError, match=r"127.0.0.1 is not a public address"):
        read_image(f"http://127.0.0.1:{first}/to?http://127.0.0.1:{second}/cat.png", timeout=5)
    assert len(servers[0].asked) == 1
    assert servers[1].asked == []


def test_logins_and_cookies_stay_with_their_host_and_port(
    monkeypatch, servers: list, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    first, second = (f"127.0.0.1:{server.server_port}" for server in servers)
    url = f"http://user:secret@{first}/to?http://{first}/to?http://{second}/cat.png"
    assert read_image(url, allow_private=True).width == 30
    assert [headers.get("Authorization") for _, headers in servers[0].asked] == [LOGIN, LOGIN]
    asked = [headers for server in servers for _, headers in server.asked]
    assert "Authorization" not in servers[1].asked[0][1]
    assert not any("Cookie" in headers for headers in asked)
    read_image(f"http://{first}/to?http://user:secret@{second}/", allow_private=True)
    assert not any("Authorization" in headers for _, headers in servers[1].asked)


def test_a_proxy_is_used_but_not_for_what_is_private(monkeypatch, servers: list) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{servers[0].server_port}")
    monkeypatch.setenv("no_proxy", "")
    assert read_image("http://a-name-only-the-proxy-knows.invalid/cat.png").width == 30
    assert servers[0].asked[0][0] == "http://a-name-only-the-proxy-knows.invalid/cat.png"
    with pytest.raises(ImageError, match="not a public address"):
        read_image(f"http://2130706433:{servers[1].server_port}/")
    assert len(servers[0].asked) == 1


@pytest.mark.parametrize("path", ["drip", "silent"])
def test_no_thread_outlives_its_time(path: str, servers: list) -> None:
    url = f"http://127.0.0.1:{servers[0].server_port}/{path}"
    with pytest.raises(ImageError, match=r"timed out after 0.2 s"):
        read_image(url, timeout=0.2, allow_private=True)
    deadline = time.monotonic() + 0.3
    while any(thread.name == "dff-download" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "url",
    [
        "http://", "http://[", "http://[::1", "http://user:secret@[/", "http://host:port/",
        "http://host:99999/", "http:///path", "http://user:secret@/x.png", "http://a\x1b[31m/",
        "http://a/\ud800", "http://" + "a" * 100_000 + "/", "ftp://user:secret@host/a.png",
        " http://user:secret@[/a", "http://user:se/secret@host/x.png", "http://a/\0",
    ],
)  # fmt: skip
def test_addresses_that_cannot_be(url: str) -> None:
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"cannot (fetch|read)") as got:
        read_image(url, timeout=5)
    message = str(got.value)
    assert time.monotonic() - started < 1
    assert "secret" not in message
    assert message.isprintable()
    assert len(message) < 400


def test_server_phrases_are_made_plain(servers: list) -> None:
    with pytest.raises(ImageError, match=r"answered 500 bad \[31m phrase") as got:
        read_image(f"http://127.0.0.1:{servers[0].server_port}/phrase", allow_private=True)
    assert str(got.value).isprintable()
    assert len(str(got.value)) < 400


def test_names_of_pictures_hold_no_password(servers: list) -> None:
    port = servers[0].server_port
    for path in ("", "/", "/page"):
        url = f"http://user:secret@127.0.0.1:{port}{path}"
        assert "secret" not in read_image(url, allow_private=True).name


def test_shown() -> None:
    assert shown("http://user:secret@host:80/a?b#c") == "http://host:80/a?b#c"
    assert shown("http://host/@a/b") == "http://host/@a/b"
    assert shown("http://user:sec/ret@host/") == "http://…"
    assert shown("http://user:12#34@host/") == "http://…"
    assert len(shown("http://host/" + "a" * 999)) < 130
