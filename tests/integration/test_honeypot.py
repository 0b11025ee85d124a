"""The honeypot in a real Kamailio: who proves himself is reported, and nobody else."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.log import EVENTS
from apiban.trial.kamailio import SCRIPT
from kamailio_kemi_stubs import lists, live

from tests.support.honeypot import KEY, Honeypot, Tool, nonce_in, running
from tests.support.node import HOST, wait_for
from tests.support.sip import Upstream, message

pytestmark = pytest.mark.kamailio

TOOL, PROBER, VICTIM = "127.0.1.9", "127.0.1.10", "127.0.1.11"


@pytest.fixture
def pot(tmp_path: Path) -> Iterator[Honeypot]:
    """Give a started honeypot."""
    with running(tmp_path) as started:
        yield started


@contextlib.contextmanager
def elsewhere() -> Iterator[Upstream]:
    """Give a server that nothing may be sent to."""
    server = Upstream()
    try:
        yield server
    finally:
        server.stop()


def reported_unproven(pot: Honeypot, source: str) -> bool:
    """Tell whether the feed was told of an unproven source."""
    return any(one["source"] == source for one in pot.feed.unproven)


def test_tool_that_answers_a_challenge_is_reported(pot: Honeypot) -> None:
    """With its proof, and all that it tried; the secret is nowhere."""
    with Tool(TOOL, pot.target) as tool:
        assert b" 401 " in tool.prove("Unguessable-1")
        assert b" 200 OK" in tool.prove("1234", user="200")
    wait_for(lambda: pot.feed.messages(TOOL) == 2, "both messages at the feed")
    first = pot.feed.of(TOOL)[0]
    assert (first["proof"], first["method"], first["transport"]) == ("nonce", "REGISTER", "udp")
    assert first["user_agent"] == "telephone"
    assert {user for one in pot.feed.of(TOOL) for user in one["users"]} == {"a", "100", "200"}
    assert pot.feed.authorizations == {f"Bearer {KEY}"}
    wait_for(lambda: not pot.rows("sighting"), "the queue to be empty")
    files = b"".join(file.read_bytes() for file in (pot.folder / "state").iterdir())
    assert b"nonce" in files  # the word alone: the proof's name
    assert KEY not in " ".join(pot.kamailio.log_lines())


def test_who_only_probes_stays_unproven(pot: Honeypot) -> None:
    """OPTIONS, and requests that do not answer the challenge, list nobody."""
    with Tool(PROBER, pot.target) as tool:
        assert b" 200 OK" in tool.ask()
        assert b" 401 " in tool.ask(tool.request("REGISTER"))
        assert b" 401 " in tool.ask(tool.request("INVITE"))
    wait_for(lambda: reported_unproven(pot, PROBER), "the unproven source at the feed")
    assert pot.counts.sightings == 0
    assert pot.feed.sightings == []
    assert pot.rows("sighting") == []


def test_forger_with_a_good_nonce_of_his_own_lists_nobody(pot: Honeypot) -> None:
    """Neither at another address, nor at another port of his."""
    with Tool(TOOL, pot.target) as tool:
        nonce = nonce_in(tool.ask(tool.request("REGISTER")))
        for source in (VICTIM, TOOL):
            with Tool(source, pot.target) as forged:
                assert b" 401 " in forged.ask(forged.answer_to(nonce, "1234"))
        assert pot.counts.sightings == 0
        assert b" 200 OK" in tool.ask(tool.answer_to(nonce, "1234"))
    wait_for(lambda: pot.feed.messages(TOOL) == 1, "the one sighting")
    wait_for(lambda: reported_unproven(pot, VICTIM), "the victim as unproven")
    assert pot.feed.of(VICTIM) == []


def test_call_is_taken_and_leads_nowhere(pot: Honeypot) -> None:
    """INVITE with a nonce: 100, 180, 200 with our own address; then ACK and BYE."""
    with Tool(TOOL, pot.target) as tool:
        nonce = nonce_in(tool.ask(tool.request("INVITE")))
        answers = [tool.ask(tool.answer_to(nonce, "x", "INVITE"))]
        answers += [tool.receive(2), tool.receive(2)]
        assert [answer[8:11] for answer in answers] == [b"100", b"180", b"200"]
        assert f"c=IN IP4 {HOST}\r\n".encode() in answers[-1]
        tool.send(tool.request("ACK"))
        assert b" 200 OK" in tool.ask(tool.request("BYE"))
    wait_for(lambda: pot.feed.messages(TOOL) == 1, "the call at the feed")
    assert pot.feed.of(TOOL)[0]["dialled"] == "100"


def test_tcp_source_is_a_sighting(pot: Honeypot) -> None:
    """By its connection; its nonce is checked all the same before a call is taken."""
    with Tool(TOOL, pot.target, "tcp") as tool:
        assert b" 200 OK" in tool.ask()
        assert b" 401 " in tool.ask(tool.request("INVITE"))
        assert b" 200 OK" in tool.prove("1234")
    wait_for(lambda: pot.feed.messages(TOOL) == 4, "all four messages")
    assert {(one["proof"], one["transport"]) for one in pot.feed.of(TOOL)} == {
        ("connection", "tcp")
    }


def test_junk_over_tcp_ends_the_connection(pot: Honeypot) -> None:
    """And breaks nothing."""
    with Tool(TOOL, pot.target, "tcp") as tool:
        tool.send(b"\xff\xfejunk that is no SIP\r\n\r\n")
        assert tool.is_closed()
    with Tool(TOOL, pot.target, "tcp") as tool:
        assert b" 200 OK" in tool.ask()


def test_tls_source_is_a_sighting(tmp_path: Path) -> None:
    """By its connection."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=pbx.test", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    defines = (
        "WITH_TLS",
        f'APIBAN_TLS_CERTIFICATE="{certificate}"',
        f'APIBAN_TLS_KEY="{key}"',
    )
    with running(tmp_path, listen=["udp", "tls"], defines=defines) as pot:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection(pot.target, 5, (TOOL, 0))
        with context.wrap_socket(plain) as secure:
            secure.send(message("REGISTER", TOOL, secure.getsockname()[1], "tls", HOST))
            assert b" 401 " in secure.recv(4096)
        wait_for(lambda: pot.feed.messages(TOOL) == 1, "the sighting")
        assert pot.feed.of(TOOL)[0]["transport"] == "tls"


def test_ipv6_source_is_a_sighting(tmp_path: Path) -> None:
    """Over UDP with a nonce, and over TCP."""
    with running(tmp_path, host="::1") as pot:
        with Tool("::1", pot.target) as tool:
            assert b" 200 OK" in tool.prove("1234")
        with Tool("::1", pot.target, "tcp") as tool:
            assert b" 200 OK" in tool.ask()
        wait_for(lambda: pot.feed.messages("::1") == 2, "both")
        assert {one["proof"] for one in pot.feed.sightings} == {"nonce", "connection"}


def test_answers_go_to_where_the_request_came_from(pot: Honeypot) -> None:
    """Whatever its Via, Route, Contact or request-URI names."""
    with elsewhere() as other, Tool(PROBER, pot.target) as tool:
        there = f"{other.address}:{other.port}"
        for method in ("OPTIONS", "INVITE", "BYE"):
            data = tool.request(method)
            data = re.sub(
                rb"Via: SIP/2.0/UDP [^;]+",
                f"Via: SIP/2.0/UDP {there};maddr={other.address}".encode(),
                data,
            )
            data = data.replace(
                b"Max-Forwards", f"Route: <sip:{there};lr>\r\nMax-Forwards".encode()
            )
            data = re.sub(rb"sip:100@\S+ SIP", f"sip:100@{there} SIP".encode(), data, count=1)
            assert b"SIP/2.0 " in tool.ask(data)
        assert other.received == []


def test_replies_are_not_relayed(pot: Honeypot) -> None:
    """A reply whose second Via names somebody else ends here."""
    with elsewhere() as other, Tool(PROBER, pot.target) as tool:
        host, port = pot.target
        tool.send(
            f"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bKa\r\n"
            f"Via: SIP/2.0/UDP {other.address}:{other.port};branch=z9hG4bKb\r\n"
            "From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: r\r\nCSeq: 1 OPTIONS\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        assert b" 200 OK" in tool.ask()  # a later message has been handled
        assert tool.receive(0.3) == b""
        assert other.received == []


def test_configuration_loads_nothing_that_relays() -> None:
    """No tm, no forward: what is not there cannot be called."""
    text = (SCRIPT.parents[1] / "kamailio" / "honeypot.cfg").read_text()
    modules = set(re.findall(r'^loadmodule "(\w+)\.so"', text, re.MULTILINE))
    allowed = {"sl", "pv", "textops", "rtimer", "ctl", "kex", "tls", "app_python3"}
    assert modules == allowed | {"xlog", "jsonrpcs", "debugger"}
    code = "".join(
        path.read_text() for path in (SCRIPT.parent / "apiban" / "honeypot").glob("*.py")
    )
    assert not re.search(r"\bksr\.\w*(?:relay|forward)|\.tm\.|\$du", code)


def test_every_function_that_is_called_is_there() -> None:
    """On this Kamailio, with the types of our oldest one."""
    call = re.compile(r"\b(?:_ksr|ksr|KSR)\.([a-z_0-9]+(?:\.[a-z_0-9]+)?)\b")
    names = {f"xlog.x{level}" for level in EVENTS.values()}
    for path in (
        SCRIPT.with_name("apiban_honeypot.py"),
        SCRIPT.parent / "apiban" / "honeypot" / "trap.py",
        SCRIPT.parent / "apiban" / "honeypot" / "node.py",
    ):
        names.update(call.findall(path.read_text(encoding="utf-8")))
    assert {"sl.send_reply", "set_drop", "set_reply_no_connect"} <= names
    assert "jsonrpcs.exec" in names
    recorded, there = lists.load("5.6"), live.read().functions
    for name in sorted(names - {"xlog"}):  # the module, whose functions are in it by their names
        assert name in there, name
        assert (there[name].params, there[name].ret) == (
            recorded[name].params,
            recorded[name].ret,
        ), name


def test_bad_settings_end_the_start(tmp_path: Path) -> None:
    """With the reason in the log."""
    pot = Honeypot(tmp_path, settings={"answers.per_source": -1})
    try:
        with pytest.raises(Exception, match="did not start"):
            pot.start()
        assert "answers.per_source" in pot.events("settings-refused")[0]
    finally:
        pot.stop()


def test_junk_breaks_nothing_and_fills_no_log(pot: Honeypot) -> None:
    """Whatever bytes come, the next request is answered, and no line is written for each."""
    lines = len(pot.kamailio.log_lines())
    with Tool(PROBER, pot.target) as tool:
        good = tool.request()
        for junk in (
            b"\xff" * 2000,
            b"\x00" * 60_000,
            good.replace(b"telephone", b"\xff\x00\xfe"),
            good.replace(b"To: <", b"To: <<<"),
            good.replace(b"CSeq: 1", b"CSeq: x"),
            good.replace(b"Content-Length: 0", b"Content-Length: -5"),
            good.replace(b"Content-Length: 0", b"Content-Length: " + b"9" * 30),
            good.replace(b"Max-Forwards: 70", b"X: " + b"y" * 60_000),
            good.replace(b"From:", b"From: \xff"),
            good.replace(b"SIP/2.0/UDP", b"SIP/2.0/\xff"),
            good.replace(b"\r\n", b"\n"),
            good.replace(b"\r\n", b"\r"),
            good.replace(b"OPTIONS", b"\xc3\xa9"),
            good[:40],
        ):
            for _ in range(3):
                tool.send(junk)
    wait_for(lambda: pot.counts.unproven >= 3 * 8, "most of the junk counted")
    with Tool(TOOL, pot.target) as tool:
        assert b" 200 OK" in tool.prove("1234")
    assert pot.counts.faults == 0
    new = [line for line in pot.kamailio.log_lines()[lines:] if "honeypot-summary" not in line]
    # 6.0's core has a line of its own for each datagram of about 60 kB, before any script runs.
    new = [line for line in new if "read message too large" not in line]
    assert [line for line in new if "event=sighting" not in line] == []
