"""Which addresses of the internet are public, and how an address is shown to people."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

__all__ = ["is_public", "shown"]

NAT64 = IPv6Network("64:ff9b::/96")
COMPATIBLE = IPv6Network("::/96")  # IPv4 written as IPv6, long since out of use
LONGEST = 120


def is_public(address: str) -> bool:
    """Return whether a numeric address is of the public internet.

    Loopback, private, link-local, shared (carriers'), reserved, multicast and unspecified
    addresses are not; nor is IPv6 that stands for such an IPv4 address (mapped, NAT64, 6to4).
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and (ip in NAT64 or ip in COMPATIBLE):
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return ip not in COMPATIBLE and is_public(str(inner))
        if ip.is_site_local or ip.teredo:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def shown(url: str) -> str:
    """Return an address fit for a message: on one line, not too long, and without a password."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#]*)(.*)", url, re.DOTALL)
    scheme, authority, rest = match.groups() if match else ("", "", url)
    host = authority.rpartition("@")[2]
    # An @ further on may end a password that holds a slash.
    unclear = "@" in rest and ":" in authority and "@" not in authority
    text = f"{scheme}://…" if unclear else f"{scheme}://{host}{rest}" if scheme else url
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST else f"{text[:80]}…{text[-30:]}"
