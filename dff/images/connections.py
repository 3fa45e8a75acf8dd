"""Connections that know whom they reach, and that end when their time is over."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection

from dff.errors import ImageError
from dff.images.addresses import is_public, shown

__all__ = ["Guard", "GuardedAdapter"]


class Guard:
    """Opens the connections of one download.

    A name is resolved once; the addresses are checked, and these very addresses are connected
    to, so that a name server cannot give one address to the check and another to the connection.

    Args:
        allow_private: connect to addresses that are not public, too.
        timeout: seconds from now until all connections end.
    """

    def __init__(self, *, allow_private: bool, timeout: float) -> None:
        self.allow_private = allow_private
        self.deadline = time.monotonic() + timeout
        self._twins: list[socket.socket] = []
        self._over = False

    def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host.

        Raises:
            ImageError: one of them is not public.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self.allow_private and not is_public(address):
                raise ImageError(
                    f"cannot fetch from {shown(host)}: {address} is not a public address; if you "
                    "trust it, give --allow-private (read_image: allow_private=True)"
                )
        return addresses

    def connect(self, connection: HTTPConnection, *, proxy: bool) -> socket.socket:
        """Open the socket of a connection; a proxy may be anywhere, as the user chose it."""
        host, port = connection.host.strip("[]"), connection.port
        addresses = [host] if proxy else self.resolve(host, port)
        for last, address in enumerate(addresses, 1 - len(addresses)):
            left = self.deadline - time.monotonic()
            if self._over or left <= 0:
                raise TimeoutError("timed out")
            try:
                opened = create_connection(
                    (address, port), left, socket_options=connection.socket_options
                )
            except OSError:
                if last == 0:
                    raise
                continue
            # A twin of the socket: TLS takes the socket itself away.
            self._twins.append(opened.dup())
            if self._over:
                self.end()
            return opened
        raise OSError("the name has no address")

    def end(self) -> None:
        """End all connections now, whatever waits for them; may be called by any thread."""
        self._over = True
        for twin in self._twins:
            with contextlib.suppress(OSError):  # it may have ended by itself
                twin.shutdown(socket.SHUT_RDWR)
            twin.close()


class GuardedAdapter(HTTPAdapter):
    """Sends requests of a session over the connections of a :class:`Guard`."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self.guard, proxy=False)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not str(proxy).lower().startswith("socks"):
            manager.pool_classes_by_scheme = _pools(self.guard, proxy=True)
        return manager


def _pools(guard: Guard, *, proxy: bool) -> dict[str, Any]:
    """Return the pools whose connections a guard opens, by scheme."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return guard.connect(self, proxy=proxy)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return guard.connect(self, proxy=proxy)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
