"""Forged floods: nobody is listed for them; answers, files and memory do not grow with them."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import time
from pathlib import Path

import pytest
from apiban.honeypot.message import read_request
from apiban.trial.kamailio import KamailioError

from tests.support.honeypot import Honeypot, Tool, running
from tests.support.node import wait_for
from tests.support.sip import message

pytestmark = pytest.mark.kamailio

FORGED = 100_000
IP_PKTINFO = 8  # the kernel's number, which Python 3.11 has no name for
PACKET_INFO = struct.Struct("=I4s4s")


class Forger:
    """Sends datagrams from any address of 127.0.0.0/8, through one socket."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", 0))
        self._socket.setblocking(False)  # noqa: FBT003 - socket's own name for it
        self._target = target
        self.port = self._socket.getsockname()[1]

    def send(self, data: bytes, source: str) -> None:
        """Send as if from a source."""
        info = PACKET_INFO.pack(0, socket.inet_aton(source), b"\0" * 4)
        control = [(socket.IPPROTO_IP, IP_PKTINFO, info)]
        self._socket.sendmsg([data], control, 0, self._target)

    def answers(self) -> list[bytes]:
        """Give what came back to any of the sources."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def uptime() -> float:
    """Give the time by which the budget counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def memory(pot: Honeypot) -> int:
    """Give the private memory of all of its processes, in kB."""
    total = 0
    for pid in pot.processes("kamailio") + pot.processes("reporter"):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(n) for n in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))
    return total


def flood(pot: Honeypot, forger: Forger, number: int, first: int) -> tuple[int, list[bytes]]:
    """Send datagrams from as many sources, no faster than they are handled; give the answers."""
    template = Tool("127.0.1.9", pot.target)
    with template:
        data = template.request("REGISTER")
    handled = pot.counts.unproven
    answers: list[bytes] = []
    counted = handled
    for n in range(first, first + number):
        source = f"127.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"
        forger.send(data, source)
        if n % 200 == 199:
            answers += forger.answers()
            give_up = time.monotonic() + 0.5
            while n - first + 1 - (counted - handled) > 400 and time.monotonic() < give_up:
                time.sleep(0.001)
                counted = pot.counts.unproven
    wait_for(lambda: pot.counts.unproven - handled >= number * 0.95, "the flood handled", 60)
    return len(data), answers + forger.answers()


def test_forged_flood_lists_nobody(tmp_path: Path) -> None:
    """A hundred thousand datagrams from as many sources."""
    settings = {"unproven.keep": 2000, "answers.overall": 50, "report.interval": 1}
    with running(tmp_path, settings=settings) as pot:
        forger = Forger(pot.target)
        first = uptime()
        _, earlier = flood(pot, forger, 30_000, 1)  # caches have their size after it
        before, began = memory(pot), time.monotonic()
        size, answers = flood(pot, forger, FORGED, 70_000)
        took = time.monotonic() - began
        last, counts = uptime(), pot.counts
        after = memory(pot)
        forger.close()
        assert counts.sightings == 0
        assert pot.feed.sightings == []
        assert pot.rows("sighting") == []
        assert len(pot.rows("unproven")) <= 2000
        state = sum(file.stat().st_size for file in (tmp_path / "state").iterdir())
        assert state < 16 << 20
        assert after - before < 8192, (before, after)
        seconds = int(last) - int(first) + 1  # that the budget had, of 50 each
        assert counts.answers <= 50 * seconds
        assert len(earlier) + len(answers) <= counts.answers
        assert max(len(answer) for answer in answers) <= 1.5 * size
        assert counts.faults == 0
        assert counts.not_kept > FORGED / 2
        assert len([line for line in pot.kamailio.log_lines() if "event=" in line]) < 100
        wait_for(lambda: pot.feed.unproven, "unproven sources at the feed")
        told = sum(body["unproven_not_kept"] for body in pot.feed.bodies)
        assert told > FORGED / 4
        print(  # noqa: T201 - figures for who runs it with -s
            f"\n{FORGED} forged in {took:.1f} s: {len(answers)} answers, "
            f"{after - before} kB more memory, {state} bytes of files"
        )
        with Tool("127.0.1.9", pot.target) as tool:  # the honeypot is as good as before
            time.sleep(1)
            assert b" 200 OK" in tool.prove("1234")


def test_answers_to_one_source_are_few(tmp_path: Path) -> None:
    """Ten in a window, whichever worker its datagrams come to; a tool with a nonce has more."""
    with running(tmp_path, settings={"answers.window": 3600}) as pot:
        with Tool("127.0.1.9", pot.target) as tool:
            for _ in range(200):
                tool.send()
            wait_for(lambda: pot.counts.unproven == 200, "all of them handled")
            answers = 0
            while tool.receive(0.2):
                answers += 1
        assert answers == 10
        assert pot.counts.silent == 190
        with Tool("127.0.1.10", pot.target) as tool:
            assert all(b" 401 " in tool.prove("wrong") for _ in range(10))
            assert pot.counts.sightings == 10


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE", "BYE", "INFO", "KDMQ"])
def test_answers_are_never_much_larger_than_the_request(tmp_path: Path, method: str) -> None:
    """Measured on the wire, for requests from the smallest on; and the large ones are answered."""
    with running(tmp_path, settings={"answers.per_source": 1000}) as pot:
        answered = 0
        with Tool("127.0.1.9", pot.target) as tool:
            whole = message(method, "127.0.1.9", tool.port, "udp", pot.target[0])
            via = b"Via: SIP/2.0/UDP 127.0.1.99:9"  # which Kamailio has to correct
            small = re.sub(rb"Via: SIP/2.0/UDP [^;]+", via, whole)
            small = re.sub(rb"Contact.*\r\n|Max-Forwards.*\r\n|User-Agent.*\r\n", b"", small)
            for padding in range(0, 400, 20):
                data = small.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * padding + b"\r\n\r\n")
                answer = tool.ask(data, timeout=0.1)
                answered += bool(answer)
                assert len(answer) <= 1.5 * len(data)
        assert answered >= 8


# What the mutants below are made of: headers of all kinds, and what is put into them.
LINES = (
    *(b"OPTIONS sip:b@b.cc SIP/2.0", b"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKx;rport"),
    *(b'From: "A" <sip:a@b.cc>;tag=1', b"To: <sip:b@b.cc>", b"Call-ID: c1", b"CSeq: 1 OPTIONS"),
    *(b"Contact: <sip:a@b.cc:5>;expires=3", b"Max-Forwards: 70", b"User-Agent: x"),
    *(b"Record-Route: <sip:a@b;lr>", b"Route: <sip:a@b;lr>", b"Expires: 3", b"Content-Length: 0"),
)
PIECES = (
    *(b";", b"=", b",", b"<", b">", b'"', b" ", b"\t", b":", b"@", b"[", b"]", b"\\", b"%", b"0"),
    *(b"99999", b"a", b";tag=", b";branch=", b";rport=", b";received=", b";maddr=", b";alias"),
    *(b"sip:", b"\0", b"\xff", b"(", b")", b"&", b"?", b"/", b"\r\n ", b"\r", b"\n", b"\r\n", b"*"),
    *(b"\x0b", b"Via: ", b"[::1]", b"-", b".", b"UDP", b"\r\nRetry-After: x", b"\r\nExpires: -"),
)


def mutant(chance: random.Random) -> bytes:
    """Give a request with one to three changes in its lines."""
    lines = list(LINES)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.choice((1, 3, 5, chance.randrange(len(lines))))
        begin = chance.randint(0, len(lines[at]))
        end = begin + chance.choice((0, 0, 1, 4))
        lines[at] = lines[at][:begin] + chance.choice(PIECES) + lines[at][end:]
    return b"\r\n".join(lines) + chance.choice((b"\r\n\r\n", b"\r\n\r\n", b"\r\n", b"", b"\n\n"))


def speaking(pot: Honeypot) -> list[str]:
    """Give the lines that Kamailio's core wrote on its own, of errors and warnings."""
    return [
        line for line in pot.kamailio.log_lines() if re.search(r"(ERROR|WARNING): <core>", line)
    ]


def is_quiet(pot: Honeypot) -> bool:
    """Tell whether the core was told to be quiet."""
    with contextlib.suppress(KamailioError):
        return "-2" in pot.kamailio.rpc("dbg.get_mod_level", "core")
    return False


def test_no_datagram_makes_a_line_in_the_log(tmp_path: Path) -> None:
    """Neither those that Kamailio is given, were it to speak; nor any others."""
    chance = random.Random(20)  # the same ones each time
    with running(tmp_path) as pot:
        wait_for(lambda: is_quiet(pot), "a quiet core")
        pot.kamailio.rpc("--", "dbg.set_mod_level", "core", "-1")
        before = len(speaking(pot))
        with Tool("127.0.1.9", pot.target) as tool:
            for _ in range(80):
                handled, sent = pot.counts.unproven, 0
                while sent < 50:
                    data = mutant(chance)
                    found = read_request(data)
                    tool.send(data)
                    sent += found is not None and found.whole
                enough = handled + sent
                wait_for(lambda least=enough: pot.counts.unproven >= least, "them handled")
            assert speaking(pot)[before:] == []
        assert pot.counts.faults == 0


def test_one_source_does_not_keep_the_connections(tmp_path: Path) -> None:
    """Silent ones end after some seconds, and those that find no place make no line."""
    with running(tmp_path, defines=["APIBAN_CONNECTIONS=30"]) as pot:
        wait_for(lambda: is_quiet(pot), "a quiet core")
        before = len(pot.kamailio.log_lines())
        with contextlib.ExitStack() as held:
            for _ in range(60):
                held.enter_context(Tool("127.0.1.9", pot.target, "tcp"))

            def served() -> bool:
                with Tool("127.0.1.10", pot.target, "tcp") as other, contextlib.suppress(OSError):
                    return b" 200 " in other.ask(timeout=0.5)
                return False

            assert not served()
            wait_for(served, "a place for another source", 20)
        lines = pot.kamailio.log_lines()[before:]
        assert [line for line in lines if "connections exceeded" in line] == []
        assert any("event=sighting" in line for line in lines)
