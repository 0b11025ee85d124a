"""The trap judges, records and answers; it never routes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.clock import Clock
from apiban.gate import Board
from apiban.honeypot.answers import Answers
from apiban.honeypot.counts import total
from apiban.honeypot.nonce import Nonces
from apiban.honeypot.process import QUEUE
from apiban.honeypot.queue import MOST_OF_NETWORK, Queue
from apiban.honeypot.trap import Trap
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.honeypot.parts import request, settings

MADE: list[Trap] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close the queues that a test's workers opened."""
    yield
    while MADE:
        MADE.pop().close()


class Worker:
    """One worker's trap."""

    def __init__(
        self, folder: Path, clock: Clock | None = None, metrics_port: int = 0, **changes: Any
    ) -> None:
        self.ksr = FakeKsr("5.6")
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.settings = settings(folder, **changes)
        self.settings.state.mkdir(exist_ok=True)
        self.board = Board.unnamed(now=0)
        self.trap = Trap(
            self.ksr,
            settings=self.settings,
            board=self.board,
            answers=Answers(self.settings.answers, self.clock.uptime),
            nonces=Nonces(bytes(32), lifetime=60, now=self.clock.now),
            queue=self.settings.state / QUEUE,
            clock=self.clock,
            log=self.log,
            metrics_port=metrics_port,
        )
        MADE.append(self.trap)
        self.trap.sign_in(1, 4711)

    def send(
        self, data: bytes, source: str = "192.0.2.1", port: int = 5062, transport: str = "udp"
    ) -> list[int]:
        """Let a message come; give the codes that it is answered with."""
        self.ksr.variables = {
            "$rcv(buf)": data,
            "$(rcv(buf){s.encode.hexa})": data.hex(),
            "$rcv(srcip)": source,
            "$rcv(srcport)": port,
            "$rcv(sproto)": transport,
            "$rcv(rcvip)": "192.0.2.9",
            "$rcv(rcvport)": 5060,
        }
        self.ksr.calls.clear()
        dropped = self.ksr.dropped
        self.trap.received()
        if self.ksr.dropped == dropped:
            self.trap.request_route()
        return [int(str(args[0])) for args in self.ksr.calls_of("sl.send_reply")]

    def nonce(self, method: str = "REGISTER", **caller: Any) -> str:
        """Take a challenge."""
        assert self.send(request(method), **caller) == [401]
        headers = str(self.ksr.calls_of("hdr.append_to_reply"))
        found = re.search(r'nonce="([^"]+)"', headers)
        assert found is not None
        return found[1]

    def guess(self, nonce: str, method: str = "REGISTER", **caller: Any) -> list[int]:
        """Answer a challenge."""
        header = f'Digest username="100", realm="r", nonce="{nonce}", response="00"'
        return self.send(request(method, Authorization=header), **caller)

    def sightings(self) -> list[tuple[str, str, int, str]]:
        """Give source, method, count and proof of what is queued."""
        with Queue(self.settings.state / QUEUE) as queue:
            return [(one.source, one.method, one.count, one.proof) for one in queue.take(1000)]

    def unproven(self) -> list[tuple[str, str, int]]:
        """Give source, method and count of what was kept."""
        with Queue(self.settings.state / QUEUE) as queue:
            return [(one.source, one.method, one.count) for one in queue.unproven(1000)]


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """Give a worker."""
    return Worker(tmp_path)


@pytest.mark.parametrize(
    ("method", "codes"),
    [
        ("OPTIONS", [200]),
        ("REGISTER", [401]),
        ("INVITE", [401]),
        ("SUBSCRIBE", [401]),
        ("MESSAGE", [401]),
        ("PUBLISH", [401]),
        ("REFER", [401]),
        ("BYE", [200]),
        ("CANCEL", [200]),
        ("ACK", []),
        ("INFO", [405]),
        ("UPDATE", [405]),
        ("KDMQ", [501]),
        ("WHATEVER", [501]),
    ],
)
def test_unproven_request_gets_one_answer(worker: Worker, method: str, codes: list[int]) -> None:
    """And lists nobody."""
    assert worker.send(request(method)) == codes
    assert worker.sightings() == []


@pytest.mark.parametrize(
    ("method", "codes"),
    [
        ("REGISTER", [401]),
        ("INVITE", [100, 180, 200]),
        ("SUBSCRIBE", [200]),
        ("MESSAGE", [200]),
        ("PUBLISH", [200]),
        ("REFER", [202]),
    ],
)
def test_good_nonce_is_a_sighting(worker: Worker, method: str, codes: list[int]) -> None:
    """Of the source that read the challenge."""
    assert worker.guess(worker.nonce(method), method) == codes
    assert worker.sightings() == [("192.0.2.1", method, 1, "nonce")]


def test_proxy_authorization_counts_too(worker: Worker) -> None:
    """Tools send the one or the other."""
    header = f'Digest username="1", nonce="{worker.nonce("INVITE")}", response="0"'
    assert worker.send(request("INVITE", Proxy_Authorization=header)) == [100, 180, 200]
    assert len(worker.sightings()) == 1


@pytest.mark.parametrize(
    "forger",
    [{"source": "198.51.100.7"}, {"port": 9}, {"source": "2001:db8::1"}],
)
def test_nonce_of_another_address_or_port_lists_nobody(
    worker: Worker, forger: dict[str, Any]
) -> None:
    """Neither the source that is forged, nor the one that had the nonce."""
    nonce = worker.nonce()
    assert worker.guess(nonce, **forger) == [401]
    assert worker.sightings() == []


def test_old_nonce_lists_nobody(worker: Worker) -> None:
    """A recorded datagram is worth nothing a minute later."""
    nonce = worker.nonce()
    worker.clock.tick(60)
    assert worker.guess(nonce) == [401]
    assert worker.sightings() == []


def test_proof_is_for_one_message(worker: Worker) -> None:
    """The next datagram of the same source may be forged again."""
    worker.guess(worker.nonce())
    worker.send(request("OPTIONS"))
    assert worker.sightings() == [("192.0.2.1", "REGISTER", 1, "nonce")]
    assert ("192.0.2.1", "OPTIONS", 1) in worker.unproven()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_connection_is_proof(worker: Worker, transport: str) -> None:
    """Of whatever comes over it, whole or not."""
    assert worker.send(request("OPTIONS"), transport=transport) == [200]
    assert worker.send(request("INVITE", To="<<"), transport=transport) == []
    assert [one[1:] for one in worker.sightings()] == [
        ("OPTIONS", 1, "connection"),
        ("INVITE", 1, "connection"),
    ]


def test_call_is_answered_with_our_own_address(worker: Worker) -> None:
    """Its media go to the discard port of this host."""
    worker.guess(worker.nonce("INVITE"), "INVITE")
    ((body, kind),) = worker.ksr.calls_of("textops.set_reply_body")
    assert kind == "application/sdp"
    assert "c=IN IP4 192.0.2.9\r\n" in str(body)
    assert "m=audio 9 " in str(body)


def test_unproven_sources_share_a_budget(tmp_path: Path) -> None:
    """Silence beyond it; a proven one is answered all the same."""
    worker = Worker(tmp_path, answers_per_source=3)
    nonce = worker.nonce()
    answered = [worker.send(request("OPTIONS")) for _ in range(5)]
    assert answered == [[200], [200], [], [], []]
    assert worker.guess(nonce) == [401]
    assert total(worker.board).silent == 3


def test_small_request_gets_no_large_answer(worker: Worker) -> None:
    """An answer of more than one and a half times its size would be a gift to a forger."""
    tiny = b"OPTIONS sip:h SIP/2.0\r\nv: SIP/2.0/UDP h\r\nf: sip:a@b\r\nt: sip:a@b\r\ni: 1\r\n"
    assert worker.send(tiny + b"CSeq: 1 OPTIONS\r\n\r\n") == []
    assert worker.send(tiny + b"CSeq: 1 OPTIONS\r\nX: " + b"x" * 300 + b"\r\n\r\n") == [200]


def test_writes_of_unproven_sources_are_bounded(tmp_path: Path) -> None:
    """A second's worth is written, the rest counted."""
    worker = Worker(tmp_path, unproven_writes=5, answers_overall=0)
    for n in range(20):
        worker.send(request("OPTIONS"), source=f"10.0.0.{n}")
    assert len(worker.unproven()) == 5
    counts = total(worker.board)
    assert (counts.unproven, counts.not_kept, counts.answers) == (20, 15, 0)


def test_no_answer_without_a_record(tmp_path: Path) -> None:
    """A full queue, and one that cannot be written, leave a proven source without an answer."""
    worker = Worker(tmp_path, queue_max_rows=1)
    assert worker.send(request("OPTIONS"), transport="tcp") == [200]
    for _ in range(3):
        assert worker.send(request("INVITE"), transport="tcp") == []
    assert worker.log.names().count("queue-full") == 1
    (worker.settings.state / QUEUE).unlink()
    worker.trap.close()
    (worker.settings.state / QUEUE).mkdir()
    worker.clock.tick(2)
    for _ in range(3):
        assert worker.send(request("OPTIONS"), transport="tcp") == []
    assert worker.log.names().count("queue-failed") == 1
    assert total(worker.board).unwritten == 6
    assert worker.send(request("OPTIONS")) == [200]  # an unproven one never had a record


def test_queue_is_used_again_when_it_is_mended(worker: Worker) -> None:
    """Without a restart."""
    (worker.settings.state / QUEUE).mkdir()
    assert worker.send(request("OPTIONS"), transport="tcp") == []
    (worker.settings.state / QUEUE).rmdir()
    worker.clock.tick(2)
    assert worker.send(request("OPTIONS"), transport="tcp") == [200]


def test_one_line_for_a_source(worker: Worker) -> None:
    """Not one for each packet."""
    for _ in range(50):
        worker.send(request("OPTIONS", User_Agent="sipcli/v1.8"), transport="tcp")
    (said,) = worker.log.fields("sighting")
    assert (said["source"], said["tool"], said["proof"]) == ("192.0.2.1", "sipcli", "connection")


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 100, b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_what_is_no_request_ends_here(worker: Worker, data: bytes) -> None:
    """Kamailio does not get to see it."""
    assert worker.send(data) == []
    assert worker.ksr.dropped == 1
    assert worker.log.entries == []


def test_bytes_that_are_no_text(worker: Worker) -> None:
    """They are read, recorded and answered."""
    assert worker.send(request("OPTIONS").replace(b"telephone", b"\xff\xfe")) == [200]
    assert worker.unproven() == [("192.0.2.1", "OPTIONS", 1)]


def test_fault_is_counted_and_said_rarely(worker: Worker) -> None:
    """It costs one request its answer."""

    def broken(*_: object) -> int:
        raise RuntimeError("sl is broken")

    worker.ksr.on("sl.send_reply", broken)
    for _ in range(5):
        worker.send(request("OPTIONS"))
    assert total(worker.board).faults == 5
    assert worker.log.names() == ["fault"]


def test_nothing_but_replies_is_ever_called(worker: Worker) -> None:
    """No function that relays, whatever comes."""
    used = set()
    for method in ("INVITE", "REGISTER", "BYE", "OPTIONS", "ACK", "REFER"):
        data = request(method, Route="<sip:198.51.100.1;lr>", uri="sip:x@198.51.100.2")
        for transport in ("udp", "tcp", "tls"):
            worker.send(data, transport=transport)
            used |= {call.name for call in worker.ksr.calls}
    worker.guess(worker.nonce("INVITE"), "INVITE")
    used |= {call.name for call in worker.ksr.calls}
    assert used == {
        "pv.get",
        "force_rport",
        "set_reply_no_connect",
        "hdr.append_to_reply",
        "textops.set_reply_body",
        "sl.send_reply",
    }


def test_busy_queue_stays_open(worker: Worker) -> None:
    """The message at hand has no answer; the next one is queued, without a pause."""
    assert worker.send(request("OPTIONS"), transport="tcp") == [200]
    other = sqlite3.connect(worker.settings.state / QUEUE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert worker.send(request("OPTIONS"), transport="tcp") == []
    other.execute("ROLLBACK")
    assert worker.send(request("OPTIONS"), transport="tcp") == [200]
    other.execute("BEGIN IMMEDIATE")
    assert worker.send(request("OPTIONS"), transport="tcp") == []
    assert worker.send(request("OPTIONS"), transport="tcp") == []
    other.execute("ROLLBACK")
    other.close()
    assert worker.send(request("OPTIONS"), transport="tcp") == []  # twice in turn: then a rest
    worker.clock.tick(1.1)
    assert worker.send(request("OPTIONS"), transport="tcp") == [200]
    counts = total(worker.board)
    assert (counts.sightings, counts.unwritten) == (3, 4)
    assert [name for name in worker.log.names() if name == "queue-failed"] == ["queue-failed"]


def test_one_network_keeps_no_others_out(worker: Worker) -> None:
    """Its further hosts get no answer, and are counted; the queue is not said to be full."""
    hosts = [f"2001:db8::{n:x}" for n in range(1, MOST_OF_NETWORK + 6)]
    answers = [worker.send(request("OPTIONS"), source=host, transport="tcp") for host in hosts]
    assert answers == [[200]] * MOST_OF_NETWORK + [[]] * 5
    assert worker.send(request("OPTIONS"), source="2001:db8:0:1::1", transport="tcp") == [200]
    assert worker.send(request("OPTIONS"), transport="tcp") == [200]
    assert total(worker.board).unwritten == 5
    assert "queue-full" not in worker.log.names()


# The metrics -----------------------------------------------------------------------------------

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"


def goes_on(worker: Worker, data: bytes, port: int, transport: str) -> bool:
    """Tell whether Kamailio goes on with a message that came to a port."""
    worker.ksr.variables = {
        "$rcv(buf)": data,
        "$rcv(srcip)": "192.0.2.1",
        "$rcv(srcport)": 4000,
        "$rcv(sproto)": transport,
        "$rcv(rcvip)": "192.0.2.9",
        "$rcv(rcvport)": port,
    }
    dropped = worker.ksr.dropped
    worker.trap.received()
    return worker.ksr.dropped == dropped


@pytest.mark.parametrize(
    ("data", "port", "transport", "expected"),
    [
        (SCRAPE, 9494, "tcp", True),
        (SCRAPE, 9494, "tls", True),
        (SCRAPE, 9494, "udp", False),
        (SCRAPE, 5060, "tcp", False),
        (SCRAPE.replace(b"GET", b"POST"), 9494, "tcp", False),
        (b"junk that is nothing\r\n\r\n", 9494, "tcp", False),
    ],
)
def test_scrape_alone_goes_on(
    tmp_path: Path, data: bytes, port: int, transport: str, *, expected: bool
) -> None:
    """At the port of the metrics; it is no sighting, and no request to answer."""
    worker = Worker(tmp_path, metrics_port=9494)
    assert goes_on(worker, data, port, transport) == expected
    worker.trap.request_route()
    assert worker.ksr.calls_of("sl.send_reply") == []
    assert (total(worker.board).sightings, total(worker.board).unproven) == (0, 0)


def test_without_metrics_no_scrape_goes_on(worker: Worker) -> None:
    """At no port."""
    assert not goes_on(worker, SCRAPE, 0, "tcp")
    assert not goes_on(worker, SCRAPE, 9494, "tcp")
