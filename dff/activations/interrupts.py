"""Set-up and clean-up that run whole, whatever signal comes at whichever moment.

Python runs a signal's handler between any two of its instructions: Ctrl-C may raise
KeyboardInterrupt inside a ``finally``, or between a context manager's last line and the body of
its ``with``. :func:`bracketed` holds signals back around set-up and clean-up, and lets them
through in the work between them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

__all__ = ["bracketed"]

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)
)

Result = TypeVar("Result")
Handler = Callable[[int, FrameType | None], object]


def bracketed(
    prepare: Callable[[], object], work: Callable[[], Result], restore: Callable[[], object]
) -> Result:
    """Return ``work()``, with ``prepare()`` before it and ``restore()`` after it, whatever happens.

    `restore` also runs where `prepare` was not begun, or raised. A signal that comes during either
    of them is handled as soon as `restore` is done, by the handler that it has.
    """
    shield = _Shield()
    # No line stands between a `try` and the one around it, so that an exception anywhere within
    # one, its `finally` included, finds the `finally` of the other.
    try:
        try:
            shield.up()
            try:
                try:
                    prepare()
                    shield.open = True
                    return work()
                finally:
                    shield.open = False
            finally:
                restore()  # never with an open shield: one that lets a signal through closes first
        finally:
            shield.down()
    finally:
        shield.down()


class _Shield:
    """Stands in for the handlers of `SIGNALS`: calls them while open, else keeps them waiting."""

    def __init__(self) -> None:
        self.open = False
        self._replaced: dict[int, Handler] = {}
        self._waiting: list[tuple[int, FrameType | None]] = []

    def up(self) -> None:
        """Take the place of each handler written in Python; those run on the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._replaced[number] = handler
                signal.signal(number, self)

    def down(self) -> None:
        """Give the handlers their place back, and then what waits for them. May be repeated."""
        for number, handler in self._replaced.items():
            if signal.getsignal(number) is self:  # else the work has set another one
                signal.signal(number, handler)
        while self._waiting:
            number, frame = self._waiting.pop(0)
            self._replaced[number](number, frame)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append((number, frame))
        while self.open and self._waiting:
            self.open = False  # so that the clean-up has its peace if the handler raises
            waiting, stack = self._waiting.pop(0)
            self._replaced[waiting](waiting, stack)
            self.open = True
