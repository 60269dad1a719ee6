"""Cuts the network for the tests: only this computer itself can be reached.

conftest.py runs this file in pytest's own process and puts its folder on PYTHONPATH, so that Python runs it at the
start of each child too, the notebooks' kernels among them. It stops what goes through Python's socket module.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

NAMES = {"localhost", "localhost.localdomain", "ip6-localhost", ""}


def local(host: Any) -> bool:
    """Is it this computer's loopback (or "every address of mine", which servers bind to)?"""
    text = (host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else host) or ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text.lower() in NAMES
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def refuse(host: Any) -> None:
    raise OSError(errno.ENETUNREACH, f"the tests run offline: {host!r} is not this computer (tests/offline)")


def guard_method(name: str) -> None:
    real = getattr(socket.socket, name)

    def guarded(self: socket.socket, *args: Any) -> Any:
        address = args[-1] if args else None  # the last argument of connect, connect_ex, sendto and sendmsg
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and not local(address[0]):
            refuse(address[0])
        return real(self, *args)

    setattr(socket.socket, name, guarded)


def guard_lookup(name: str) -> None:
    real: Callable = getattr(socket, name)

    def guarded(host: Any = None, *args: Any, **kwargs: Any) -> Any:
        # Its own name is looked up by servers that start; to connect to what comes back is refused all the same.
        if not local(host) and host != socket.gethostname():
            refuse(host)
        return real(host, *args, **kwargs)

    setattr(socket, name, guarded)


if not hasattr(socket, "offline"):
    socket.offline = True  # once in a process: a pytest started by a test runs this twice
    for method in ("connect", "connect_ex", "sendto", "sendmsg"):
        if hasattr(socket.socket, method):
            guard_method(method)
    for lookup in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        guard_lookup(lookup)
