"""Fetching an image over http(s) within limits of time, size and redirects."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from dff.errors import ImageError, UsageError

if TYPE_CHECKING:
    import requests

__all__ = ["download"]

MAX_REDIRECTS = 5
CHUNK = 1 << 16
# Files need no compression on the way, and a compressed answer could unpack to any size.
HEADERS = {
    "User-Agent": "deep-feature-factorization (image reader)",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
}


def download(url: str, *, timeout: float, max_bytes: int) -> bytes:
    """Return what lies at an http(s) address.

    Args:
        url: the address.
        timeout: seconds for all of it together: name look-up, redirects, headers and content.
        max_bytes: more than this is refused, as soon as it is announced or has come.

    Raises:
        ImageError: no answer in time, an HTTP error, too many redirects, or too many bytes.
        UsageError: a limit is not positive.
    """
    if not timeout > 0 or not max_bytes > 0:
        raise UsageError(
            f"timeout and max_bytes must be positive, not {timeout!r} and {max_bytes!r}"
        )
    # A server can send a byte a second for ever without any single read timing out, and name
    # look-up has no time limit at all, so a thread works and this one waits for the time given.
    answer: queue.SimpleQueue[bytes | ImageError] = queue.SimpleQueue()
    responses: list[requests.Response] = []

    def work() -> None:
        answer.put(_attempt(url, timeout, max_bytes, responses))

    threading.Thread(target=work, daemon=True).start()
    try:
        result = answer.get(timeout=timeout)
    except queue.Empty:
        _abandon(responses)
        raise _late(url, timeout) from None
    if isinstance(result, ImageError):
        raise result
    return result


def _abandon(responses: list[requests.Response]) -> None:
    """Wake the thread that still reads, where urllib3 can (2.3 on), so that it ends."""
    for response in responses:
        shutdown = getattr(response.raw, "shutdown", None)
        if shutdown is not None:
            with contextlib.suppress(Exception):  # it may have ended by itself meanwhile
                shutdown()


def _attempt(
    url: str, timeout: float, max_bytes: int, responses: list[requests.Response]
) -> bytes | ImageError:
    """Fetch `url`, and return an error in place of raising it, to hand it between threads."""
    import requests

    try:
        with requests.Session() as session:
            session.max_redirects = MAX_REDIRECTS
            with session.get(url, headers=HEADERS, stream=True, timeout=timeout) as response:
                responses.append(response)
                if not response.ok:
                    status = f"{response.status_code} {response.reason or ''}".strip()
                    return ImageError(f"cannot fetch {_shown(url)}: the server answered {status}")
                return _content(response, max_bytes)
    except ImageError as error:
        return error
    except requests.TooManyRedirects:
        return ImageError(
            f"cannot fetch {_shown(url)}: it redirects more than {MAX_REDIRECTS} times"
        )
    except requests.Timeout:
        return _late(url, timeout)
    except requests.ConnectionError as error:
        return ImageError(f"cannot fetch {_shown(url)}: no connection ({_root(error)})")
    except Exception as error:  # nothing may be lost in the thread
        return ImageError(f"cannot fetch {_shown(url)}: {_root(error)}")


def _content(response: requests.Response, max_bytes: int) -> bytes:
    announced = response.headers.get("Content-Length", "")
    received = bytearray()
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_many(response.url, max_bytes)
    for chunk in response.iter_content(CHUNK):
        received += chunk
        if len(received) > max_bytes:
            raise _too_many(response.url, max_bytes)
    if announced.isdigit() and len(received) < int(announced):
        raise ImageError(
            f"cannot fetch {_shown(response.url)}: the connection ended after "
            f"{len(received)} of {announced} bytes; try again"
        )
    return bytes(received)


def _too_many(url: str, max_bytes: int) -> ImageError:
    return ImageError(
        f"cannot fetch {_shown(url)}: it is over the limit of {max_bytes / 1e6:g} MB; "
        "download it yourself, or raise the limit"
    )


def _late(url: str, timeout: float) -> ImageError:
    return ImageError(
        f"cannot fetch {_shown(url)}: timed out after {timeout:g} s; try again, "
        "download it yourself, or raise the timeout"
    )


def _shown(url: str) -> str:
    """Return the address without the user name and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _root(error: BaseException) -> str:
    """Return the innermost reason of a chain of wrapped errors, on one line."""
    seen: BaseException = error
    while (cause := seen.__cause__ or seen.__context__) is not None:
        seen = cause
    reason = getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
    return " ".join(reason.split())[:200]
