"""The tests run without a network: in pytest's own process and in each Python it starts (conftest.py)."""

import asyncio
import socket
import subprocess
import sys
import threading

import pytest

OUTSIDE = "192.0.2.1"  # an address kept for documentation: nobody has it
CHILD = f"""
import socket
for call in (lambda: socket.create_connection(({OUTSIDE!r}, 80), 2), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        call()
        print("went out")
    except OSError as e:
        print(e)
"""


@pytest.fixture
def answering():
    """A server on the loopback that says hello once: its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"hello")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()
        thread.join(5)


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_connection_out_is_refused(method):
    with socket.socket() as s, pytest.raises(OSError, match=r"the tests run offline: '192\.0\.2\.1'"):
        s.settimeout(2)
        getattr(s, method)((OUTSIDE, 80))


def test_a_datagram_out_is_refused():
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        with pytest.raises(OSError, match="offline"):
            s.sendto(b"x", (OUTSIDE, 9))
        with pytest.raises(OSError, match="offline"):
            s.sendto(b"x", 0, (OUTSIDE, 9))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize("host", ["2001:db8::1", "::ffff:192.0.2.1"])
def test_so_is_one_over_ipv6(host):
    with socket.socket(socket.AF_INET6) as s, pytest.raises(OSError, match="offline"):
        s.connect((host, 80, 0, 0))


@pytest.mark.parametrize("lookup", ["getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
def test_names_outside_are_not_looked_up(lookup):
    rest = (80,) if lookup == "getaddrinfo" else ()
    with pytest.raises(OSError, match=r"the tests run offline: 'example\.org'"):
        getattr(socket, lookup)("example.org", *rest)


def test_asyncio_does_not_get_out_either():
    with pytest.raises(OSError, match="offline"):
        asyncio.run(asyncio.wait_for(asyncio.open_connection(OUTSIDE, 80), 2))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_loopback_works(answering, name):
    with socket.create_connection((name, answering[1]), 5) as s:
        assert s.recv(5) == b"hello"


def test_a_child_python_is_offline_too():
    said = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=30)
    lines = said.stdout.splitlines()
    assert len(lines) == 2 and all("the tests run offline" in line for line in lines), said.stdout + said.stderr


def test_a_child_python_reaches_the_loopback(answering):
    code = f"import socket; print(socket.create_connection({answering!r}, 5).recv(5))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert said.stdout.strip() == "b'hello'", said.stderr
