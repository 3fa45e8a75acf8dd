"""The Hugging Face hub: asked once whether it answers, and not at all where it does not."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

__all__ = ["quick_hub"]

PATIENCE = 5.0  # seconds for a name to resolve and a connection to be made


@contextmanager
def quick_hub() -> Iterator[str]:
    """Let the hub's packages keep to their cache where the hub cannot be reached, and log errors.

    They would try six times over half a minute, a line each. What is changed of them is put back.

    Yields:
        Why there is nothing but the cache; empty where the hub answers.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as log

    offline, verbosity = constants.HF_HUB_OFFLINE, log.get_verbosity()
    why = "HF_HUB_OFFLINE is set" if offline else _unreachable(constants.ENDPOINT)
    log.set_verbosity_error()
    constants.HF_HUB_OFFLINE = bool(why)
    try:
        yield why and f"{why}, and it is not in {constants.HF_HUB_CACHE}"
    finally:
        constants.HF_HUB_OFFLINE = offline
        log.set_verbosity(verbosity)


def _unreachable(endpoint: str) -> str:
    """Return why no connection can be made; empty where it can, or is a proxy's to make."""
    parts = urlsplit(endpoint)
    if parts.scheme in urllib.request.getproxies():
        return ""
    port = parts.port or (80 if parts.scheme == "http" else 443)
    outcome = ["no answer"]

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), PATIENCE).close()
            outcome[0] = ""
        except OSError as error:
            outcome[0] = error.strerror or str(error)

    thread = threading.Thread(target=connect, daemon=True)  # a look-up of a name has no time-out
    thread.start()
    thread.join(PATIENCE)
    return outcome[0] and f"{parts.hostname} cannot be reached ({outcome[0]})"
