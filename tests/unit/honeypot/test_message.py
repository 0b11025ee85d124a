"""Requests are read from whatever bytes come; secrets are left out."""

from __future__ import annotations

import dataclasses

import pytest
from apiban.honeypot.message import read_request
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.honeypot.parts import read, request


def test_what_a_request_says() -> None:
    """Method, tool's name, the number dialled, and the users of From, To and Authorization."""
    found = read(
        "INVITE", Authorization='Digest username="1000", realm="r", nonce="n", response="0f"'
    )
    assert (found.method, found.user_agent, found.dialled) == ("INVITE", "telephone", "900123")
    assert found.users == ("bob", "alice", "1000")
    assert (found.from_user, found.from_host, found.from_tag) == ("bob", "192.0.2.9", "f1")
    assert found.branch == "z9hG4bK-x1"
    assert found.whole


def test_secrets_are_not_in_it() -> None:
    """Neither passwords in URIs, nor the response or the nonce, come out of the record."""
    data = request(
        "REGISTER",
        uri="sip:100:hunter2@192.0.2.9",
        From="<sip:bob:hunter2@b>;tag=1",
        To="sip:carol:hun@ter2@b",
        Authorization='Digest username="x:hunter2", nonce="NNNN", response="hunter2"',
        Proxy_Authorization="Basic aHVudGVyMg==",
    )
    found = read_request(data)
    assert found is not None
    assert found.users == ("bob", "carol", "x")
    assert found.dialled == "100"
    assert "hunter2" not in repr(found)
    assert "NNNN" not in repr(found)
    assert "ter2" not in repr(dataclasses.replace(found, from_host=""))


def test_compact_and_folded_headers() -> None:
    """Short names and lines that go on are read like the others."""
    data = (
        b"REGISTER sip:h SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bKa\r\nf: <sip:a@b>\r\n"
        b"\t;tag=9\r\nt: tel:+4312345\r\ni: x\r\nCSeq: 1\r\n REGISTER\r\nm: <sip:a@c>\r\n"
        b"l: 0\r\n\r\n"
    )
    found = read_request(data)
    assert found is not None
    assert found.whole
    assert (found.from_tag, found.users, found.contact) == ("9", ("a", "+4312345"), "<sip:a@c>")


def test_texts_are_cut_and_printable() -> None:
    """Control characters, bytes that are no UTF-8 and huge values do no harm."""
    found = read_request(request("MESSAGE").replace(b"telephone", b"a\x00\x1b[2J\xff" + b"b" * 999))
    assert found is not None
    assert found.user_agent is not None
    assert found.user_agent.startswith("a??[2J�bbb")
    assert len(found.user_agent) == 200
    long = read(From=f"<sip:{'u' * 500}@h>;tag=1", uri=f"sip:{'9' * 500}@h")
    assert (len(long.users[0]), len(long.dialled or "")) == (64, 64)


@pytest.mark.parametrize(
    ("method", "read_as"),
    [("options", "OPTIONS"), ("X" * 40, "UNKNOWN"), ("FO{O}", "UNKNOWN"), ("KDMQ", "KDMQ")],
)
def test_method_is_an_upper_case_token(method: str, read_as: str) -> None:
    """Of at most 32 characters; what is none has one name for all."""
    assert read(method).method == read_as


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 2000,
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS sip:x SIP/2.0",
    ],
)
def test_what_is_no_request(data: bytes) -> None:
    """Replies, other protocols and junk are none."""
    assert read_request(data) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"To": "<<<sip:x@y>"},
        {"From": ""},
        {"CSeq": "zz OPTIONS"},
        {"Content_Length": "-5"},
        {"Content-Length": "9" * 20},
        {"Via": "SIP/9.9/PIGEON x"},
        {"Call-ID": ""},
        {"X": "1\r\nno colon"},
        {"X": "1\r\n: no name"},
        {"X": "1\r\nno name: x"},
    ],
)
def test_what_kamailio_could_not_read_is_not_whole(broken: dict[str, str]) -> None:
    """Such a request is recorded, and goes no further."""
    assert not read(**broken).whole


def test_second_broken_header_counts_too() -> None:
    """Kamailio reads each of them."""
    assert not read(X="1\r\nTo: <<<").whole


@given(st.binary(max_size=600))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    """As a whole message, and as the headers of a good one."""
    read_request(data)
    read_request(b"REGISTER sip:x SIP/2.0\r\n" + data)
    found = read_request(request("INVITE").replace(b"telephone", data.replace(b"\n", b"")))
    assert found is not None


def test_hostile_text_takes_no_long_time() -> None:
    """The expressions have no input that makes them slow."""
    import time

    began = time.perf_counter()
    for text in ("sip:" * 12_000, '"\\' * 20_000, "<" * 40_000, "a " * 20_000, ";tag" * 9_000):
        read(From=text, To=text, Via=text, Authorization=f"Digest {text}", Contact=text)
    assert time.perf_counter() - began < 1.0
