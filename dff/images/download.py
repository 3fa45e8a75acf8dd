"""Fetching an image over http(s) within limits of time, size and redirects."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from dff.errors import ImageError, UsageError
from dff.images.addresses import shown

if TYPE_CHECKING:
    import requests

    from dff.images.connections import Guard

__all__ = ["download"]

MAX_REDIRECTS = 5
CHUNK = 1 << 16
# Files need no compression on the way, and a compressed answer could unpack to any size.
HEADERS = {
    "User-Agent": "deep-feature-factorization (image reader)",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
}


def download(url: str, *, timeout: float, max_bytes: int, allow_private: bool = False) -> bytes:
    """Return what lies at an http(s) address.

    A user name and password in the address go to its own host and port only, never on to where
    it redirects; ``.netrc`` is not read, and no cookies are kept.

    Args:
        url: the address.
        timeout: seconds for all of it together: name look-up, redirects, headers and content.
        max_bytes: more than this is refused, as soon as it is announced or has come.
        allow_private: fetch from this machine and private networks, too.

    Raises:
        ImageError: no valid or no public address, no answer in time, an HTTP error, too many
            redirects, or too many bytes.
        UsageError: a limit is not positive.
    """
    if not timeout > 0 or not max_bytes > 0:
        raise UsageError(
            f"timeout and max_bytes must be positive, not {timeout!r} and {max_bytes!r}"
        )
    _origin(url)
    from dff.images.connections import Guard

    # A server can send a byte a second for ever without any single read timing out, and name
    # look-up has no time limit at all, so a thread works and this one waits for the time given.
    answer: queue.SimpleQueue[bytes | ImageError] = queue.SimpleQueue()
    guard = Guard(allow_private=allow_private, timeout=timeout)

    def work() -> None:
        answer.put(_attempt(url, timeout, max_bytes, guard))

    threading.Thread(target=work, name="dff-download", daemon=True).start()
    try:
        result = answer.get(timeout=timeout)
    except queue.Empty:
        raise _late(url, timeout) from None
    finally:
        guard.end()  # also wakes the thread where it still waits
    if isinstance(result, ImageError):
        raise result
    return result


def _origin(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of an address; user names and passwords are for these.

    Raises:
        ImageError: it is no valid http(s) address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        valid = parts.scheme in ("http", "https") and url.isprintable()
    except ValueError:
        valid = False
    if not valid or not parts.hostname:
        raise ImageError(f"cannot fetch {shown(url)}: it is no valid http(s) address")
    return parts.scheme, parts.hostname, port


def _attempt(url: str, timeout: float, max_bytes: int, guard: Guard) -> bytes | ImageError:
    """Fetch `url`, and return an error in place of raising it, to hand it between threads."""
    import requests

    try:
        return _fetch(url, timeout, max_bytes, guard)
    except ImageError as error:
        return error
    except requests.Timeout:
        return _late(url, timeout)
    except requests.ConnectionError as error:
        return ImageError(f"cannot fetch {shown(url)}: no connection ({_root(error)})")
    except Exception as error:  # nothing may be lost in the thread
        return ImageError(f"cannot fetch {shown(url)}: {_root(error)}")


def _fetch(url: str, timeout: float, max_bytes: int, guard: Guard) -> bytes:
    """Follow an address to its content."""
    from requests.utils import get_auth_from_url

    login, home, place = get_auth_from_url(url), _origin(url), url
    for _ in range(MAX_REDIRECTS + 1):
        here, parts = _origin(place), urlsplit(place)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        allowed = login if any(login) and here == home else _no_login
        with _session(guard) as session:
            _check_proxied(bare, guard)
            with session.get(
                bare, headers=HEADERS, stream=True, timeout=timeout, auth=allowed,
                allow_redirects=False,
            ) as response:  # fmt: skip
                if response.is_redirect:
                    place = urljoin(bare, response.headers["location"])
                    continue
                if not response.ok:
                    status = f"{response.status_code} {_line(response.reason or '')}".strip()
                    raise ImageError(f"cannot fetch {shown(url)}: the server answered {status}")
                return _content(response, max_bytes)
    raise ImageError(f"cannot fetch {shown(url)}: it redirects more than {MAX_REDIRECTS} times")


def _session(guard: Guard) -> requests.Session:
    """Return a session of a single request, without cookies."""
    import requests

    from dff.images.connections import GuardedAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(guard))
    return session


def _no_login(request: Any) -> Any:
    """Leave a request as it is: given as its login, it keeps .netrc out."""
    return request


def _check_proxied(url: str, guard: Guard) -> None:
    """Refuse what is no public address before a proxy is asked for it.

    A proxy of the environment resolves names itself, so that what it connects to is up to it;
    what is known here to be private is not asked for.
    """
    from requests.utils import get_environ_proxies, select_proxy

    if select_proxy(url, get_environ_proxies(url)) is None:
        return
    _, host, port = _origin(url)
    try:
        guard.resolve(host, port)
    except OSError:  # only the proxy knows the name
        return


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
            f"cannot fetch {shown(response.url)}: the connection ended after "
            f"{len(received)} of {announced} bytes; try again"
        )
    return bytes(received)


def _too_many(url: str, max_bytes: int) -> ImageError:
    return ImageError(
        f"cannot fetch {shown(url)}: it is over the limit of {max_bytes / 1e6:g} MB; "
        "download it yourself, or raise the limit"
    )


def _late(url: str, timeout: float) -> ImageError:
    return ImageError(
        f"cannot fetch {shown(url)}: timed out after {timeout:g} s; try again, "
        "download it yourself, or raise the timeout"
    )


def _root(error: BaseException) -> str:
    """Return the innermost reason of a chain of wrapped errors, on one line."""
    seen: BaseException = error
    while (cause := seen.__cause__ or seen.__context__) is not None:
        seen = cause
    reason = getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
    return _line(reason)


def _line(text: str) -> str:
    """Return what a server or a library said as one short line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
