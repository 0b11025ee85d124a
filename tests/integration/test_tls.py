"""TLS at the edge: a listed source's connection ends without a byte of SIP."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.node import HOST, NodeUnderTest, wait_for
from tests.support.ports import free_port
from tests.support.sip import message

pytestmark = pytest.mark.kamailio

LISTED, GOOD = "127.0.1.5", "127.0.2.1"


@pytest.fixture
def node(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> NodeUnderTest:
    """Give a started node with a TLS listener and a certificate of its own making."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=edge.test", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    node = make_node(
        (LISTED,),
        listen=[f"udp:{HOST}:{port}", f"tls:{HOST}:{port}"],
        defines=(
            "WITH_TLS",
            f'APIBAN_TLS_CERTIFICATE="{certificate}"',
            f'APIBAN_TLS_KEY="{key}"',
        ),
    )
    node.target = (HOST, port)
    return node.start()


def ask_over_tls(source: str, node: NodeUnderTest) -> bytes:
    """Send one request over TLS; empty when the connection was closed without an answer."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(node.target, 5, (source, 0))
    with context.wrap_socket(plain) as secure:
        secure.send(message("OPTIONS", source, secure.getsockname()[1], "tls", HOST))
        try:
            return secure.recv(4096)
        except (ConnectionError, ssl.SSLEOFError):
            return b""


def test_tls(node: NodeUnderTest) -> None:
    """A listed source is dropped and counted, a good one served."""
    dropped = node.board.total().dropped
    assert ask_over_tls(LISTED, node) == b""
    wait_for(lambda: node.board.total().dropped == dropped + 1, "the count")
    assert "transport=tls" in node.events("first-drop")[-1]
    assert b" 200 OK" in ask_over_tls(GOOD, node)
    assert not node.upstream.saw(LISTED)
