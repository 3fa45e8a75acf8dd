"""Files at addresses, fetched in large blocks: what is asked for in order is fetched once.

Threads ask for parts a little out of order, and passes run side by side, each at a place of its
own. So the blocks used last are kept, and a block that one thread fetches is waited for by others.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from dff.colocalization.sources.remote import store_of

__all__ = ["BLOCK", "Blocks"]

BLOCK = 2 << 20
"""Bytes of a request: many photos, and few that the next process asks for again."""
KEPT = 32  # blocks in memory: 64 MiB, more than threads are out of order


class Blocks:
    """Parts of files at addresses; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()

    def read(self, address: str, offset: int, length: int) -> bytes:
        """Return bytes of a file; fewer where it ends.

        Raises:
            OSError, or what else the store raises.
        """
        numbers = range(offset // BLOCK, -(-(offset + length) // BLOCK))
        data = b"".join(self._block(address, number) for number in numbers)
        start = offset - numbers.start * BLOCK
        return data[start : start + length]

    def _block(self, address: str, number: int) -> bytes:
        key = (address, number)
        with self._lock:
            found = self._known.get(key)
            mine = found is None
            if found is None:
                found = self._known[key] = Future()
            self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        if mine:
            try:
                system, inner = store_of(address)
                start = number * BLOCK
                found.set_result(bytes(system.cat_file(inner, start=start, end=start + BLOCK)))
            except BaseException as error:
                with self._lock:
                    self._known.pop(key, None)  # the next to ask tries again
                found.set_exception(error)
        return found.result()
