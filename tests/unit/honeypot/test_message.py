"""Requests are read from whatever bytes come; secrets are left out."""

from __future__ import annotations

import dataclasses
import time

import pytest
from apiban.honeypot.message import read_request
from apiban.honeypot.tool import tool_of
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
        b"\t;tag=9\r\nt: tel:+4312345\r\ni: x\r\nCSeq: 1 REGISTER\r\nm: <sip:a@c>\r\n"
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


HOSTILE = ("a", " ", '"', ",", ";", "\\", "=", "<", ":", 'a="', '"\\', "a =", "sip:", "; tag", "@")


def seconds(text: str, size: int) -> float:
    """Give the time for a text that fills each header that is looked into; the best of three."""
    filled = text * (size // len(text))
    names = ("From", "To", "Via", "CSeq", "Contact", "User-Agent", "Authorization")
    start = {"Via": "SIP/2.0/UDP h;", "CSeq": "1 ", "Authorization": "Digest "}
    datagrams = [
        request(**{name.replace("-", "_"): f"{start.get(name, '<sip:a@b>;')}{filled}x"})
        for name in names
    ]
    times = []
    for _ in range(3):
        began = time.process_time()
        for data in datagrams:
            found = read_request(data)
            assert found is not None
            tool_of(found)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("text", HOSTILE)
def test_time_grows_with_the_length_alone(text: str) -> None:
    """Ten times the text take about ten times as long, not a hundred times."""
    assert seconds(text, 60_000) < 30 * seconds(text, 6_000) + 0.005


@pytest.mark.parametrize(
    "header", ["Authorization: Digest " + "a" * 4000, "X" * 4000, " y" * 2000, '"' * 4000, "a:"]
)
def test_time_grows_with_the_number_of_headers_alone(header: str) -> None:
    """Whatever stands in them."""
    line = f"{header}\r\n".encode()

    def took(size: int) -> float:
        data = request().replace(b"\r\n\r\n", b"\r\n" + line * (size // len(line)) + b"\r\n")
        began = time.process_time()
        assert read_request(data) is not None
        return time.process_time() - began

    assert min(took(60_000) for _ in range(3)) < 0.05


def test_few_credentials_are_read() -> None:
    """Whoever sends more of them than a tool does has the first four looked at."""
    header = 'Authorization: Digest username="{}", nonce="n"'
    lines = "\r\n".join(header.format(n) for n in range(20))
    found = read(X=f"1\r\n{lines}")
    assert [one.user for one in found.credentials] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Via": "SIP/2.0/UDP h:65535;branch=z;rport;x=y"},
        {"Via": "SIP/2.0/TLS [2001:db8::1]:60999;rport=60999 ; branch=z"},
        {"Via": "SIP/2.0/UDP 192.0.2.1;alias;branch=z;received=192.0.2.1"},
        {"To": '"a \\" <b>" <sip:a@b;x=1?y=2>;tag="q"'},
        {"To": "A B <sip:a@[::1]>"},
        {"From": "sip:a@b;tag=1"},
        {"CSeq": "1 \t OPTIONS"},
    ],
)
def test_what_tools_send_is_whole(headers: dict[str, str]) -> None:
    """The forms that Kamailio reads."""
    assert read(**headers).whole


@pytest.mark.parametrize(
    "headers",
    [
        {"Via": "SIP/2.0/UDP h;branch="},
        {"Via": "SIP/2.0/UDP h;branch"},
        {"Via": "SIP/2.0/UDP h;"},
        {"Via": "SIP/2.0/UDP h;;branch=z"},
        {"Via": "SIP/2.0/UDP h;brancha;rport"},
        {"Via": "SIP/2.0/UDP h;r0ort;branch=z"},
        {"Via": "SIP/2.0/UDP h;alias=z"},
        {"Via": "SIP/2.0/UDP h;rport=x"},
        {"Via": "SIP/2.0/UDP 1]2;branch=z"},
        {"Via": "SIP/2.0/UDP h:65536;branch=z"},
        {"Via": "SIP/2.0/UDP h\r\n ;branch=z"},
        {"Via": "SIP/2.0/UDP h\u0661;branch=z"},
        {"To": "<sip:a@b>;"},
        {"To": "<sip:a@b>;tag="},
        {"To": "<sip:a@b\\>"},
        {"To": '"a <sip:a@b>'},
        {"CSeq": "1\r\n OPTIONS"},
        {"CSeq": "1 x["},
        {"CSeq": "\u0661 OPTIONS"},
        {"X": "1\r\nRetry-After: x"},
        {"X": "1\r\nUser-*gent: x"},
        {"X": "1\r\nTo: <sip:a@b>"},
        {"X": "1\r\nMax-Forwards: 1\r\nMax-Forwards: 2"},
        {"X": "1\r\n" + "Y: 1\r\n" * 300},
    ],
)
def test_what_makes_kamailio_complain_is_not_whole(headers: dict[str, str]) -> None:
    """Each of these was some lines in its log."""
    assert not read(**headers).whole


def test_request_line_and_end_count_too() -> None:
    """A method that is no word, a tab in the address, a last line without an end."""
    good = request()
    assert read_request(good).whole  # type: ignore[union-attr]
    for data in (request("FO{O}"), good.replace(b"sip:", b"sip:\t", 1), good[:-4]):
        found = read_request(data)
        assert found is not None
        assert not found.whole
