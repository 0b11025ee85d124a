"""Which connections of conntrack are cut, and what is said when that cannot be done."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest
from apiban.errors import FirewallError
from apiban.firewall import conntrack, tool
from apiban.firewall.conntrack import Cut, cut, tracked
from apiban.firewall.ctnetlink import Flow, parse_flow
from apiban.firewall.elements import Block
from apiban.firewall.rules import Port
from hypothesis import given
from hypothesis import strategies as st

NAT = (
    "udp      17 119 src=198.51.100.7 dst=203.0.113.1 sport=6000 dport=15060 packets=3 bytes=99"
    " src=172.17.0.2 dst=198.51.100.7 sport=5060 dport=6000 packets=1 bytes=9 [ASSURED] mark=0"
    " secctx=null use=1\n"
)
TCP = (
    "tcp      6 431999 ESTABLISHED src=10.0.0.9 dst=192.0.2.4 sport=40000 dport=5061 src=192.0.2.4"
    " dst=10.0.0.9 sport=5061 dport=40000 [ASSURED] use=1\n"
)
ICMP = (
    "icmp     1 29 src=198.51.100.7 dst=10.0.0.9 type=8 code=0 id=77 [UNREPLIED] src=10.0.0.9"
    " dst=198.51.100.7 type=0 code=0 id=77 use=1\n"
)
FLOWS = (NAT, TCP, ICMP)


def host(text: str) -> Block:
    """Give the block of one address."""
    address = ipaddress.ip_address(text)
    return (4 if address.version == 4 else 6), int(address), int(address)


class Tool:
    """A conntrack that lists lines, and a kernel that removes what they say."""

    def __init__(self, *lines: str, breaks: str = "") -> None:
        self._lines = lines
        self._breaks = breaks
        self.started: list[str] = []
        self.removed: list[Flow] = []
        self.time = 0.0

    def list(self, words: tuple[str, ...], text: str = "", *, within: float) -> Iterator[str]:
        """Answer as the tool does."""
        assert within > 0
        self.started.append(" ".join(words))
        if self._breaks == "list":
            raise FirewallError("it is broken")
        yield from self._lines if words[3] == "ipv4" else ()

    def remove(self, flows: Sequence[Flow]) -> Iterator[bool]:
        """Remove them, all but ICMP; each takes a while."""
        for flow in flows:
            if self._breaks == "remove":
                raise FirewallError("it is broken")
            self.time += 0.01
            self.removed.append(flow)
            yield flow.icmp is None


def cuts(
    tool: Tool,
    *blocks: Block,
    allowed: Collection[Block] = (),
    ports: tuple[Port, ...] = (),
    begun_here: bool = True,
) -> Cut:
    """Cut, with that tool, where there are connections."""
    return cut(
        blocks,
        allowed=allowed,
        ports=ports,
        begun_here=begun_here,
        tracked=lambda: 3,
        stream=tool.list,
        remove=tool.remove,
        uptime=lambda: tool.time,
    )


def test_lines_of_conntrack() -> None:
    """Both directions are read, with and without ports, counters and states."""
    nat = ("198.51.100.7", "203.0.113.1", 6000, 15060, "172.17.0.2", 5060, 6000)
    tcp = ("10.0.0.9", "192.0.2.4", 40000, 5061, "192.0.2.4", 5061, 40000)
    icmp = ("198.51.100.7", "10.0.0.9", 0, 0, "10.0.0.9", 0, 0)
    assert parse_flow(NAT) == Flow("udp", 17, *nat)
    assert parse_flow(NAT.replace("use=1", "zone=9 use=1")) == Flow("udp", 17, *nat, zone=9)
    assert parse_flow(TCP) == Flow("tcp", 6, *tcp)
    assert parse_flow(ICMP) == Flow("icmp", 1, *icmp, icmp=(8, 0, 77))


@pytest.mark.parametrize(
    "line", ["", "\n", "conntrack v1.4.7: 2 flow entries have been shown.", "udp 17 29 src=1.2.3.4"]
)
def test_other_lines(line: str) -> None:
    """What is no connection is none."""
    assert parse_flow(line) is None


@pytest.mark.parametrize(("allowed", "left"), [("198.51.100.7", [TCP]), ("10.0.0.9", [NAT, ICMP])])
def test_the_allowed_within_a_banned_network(allowed: str, left: list[str]) -> None:
    """An allowed caller keeps its connections; that a banned one called it saves none."""
    tool = Tool(*FLOWS)
    everybody = (4, 0, 2**32 - 1)
    done = cuts(tool, everybody, allowed=[host(allowed)], begun_here=False)
    assert done == Cut(sum("icmp" not in line for line in left))
    assert tool.removed == [parse_flow(line) for line in left]


def test_the_allowed_who_answers() -> None:
    """It is who was called from here, and is allowed."""
    tool = Tool(TCP)
    answers = host("192.0.2.4")
    assert cuts(tool, answers, allowed=[answers]) == Cut(0)
    assert cuts(tool, answers) == Cut(1)


@given(st.text(max_size=300))
def test_any_line(line: str) -> None:
    """No line breaks the reader."""
    parse_flow(line)


_ports = st.integers(0, 65535)
_ways = st.tuples(st.ip_addresses().map(str), st.ip_addresses().map(str), _ports, _ports)


@given(
    st.sampled_from([("udp", 17), ("tcp", 6), ("sctp", 132), ("dccp", 33)]),
    _ways,
    _ways,
    st.sampled_from(["", "[UNREPLIED] ", "packets=1 bytes=90 "]),
    st.sampled_from(["29", "431999 ESTABLISHED", "1 CLOSED"]),
)
def test_any_connection(
    protocol: tuple[str, int],
    there: tuple[str, str, int, int],
    back: tuple[str, str, int, int],
    between: str,
    state: str,
) -> None:
    """Whatever is tracked is read as it was written."""
    one, two = (
        f"src={way[0]} dst={way[1]} sport={way[2]} dport={way[3]} " for way in (there, back)
    )
    name, number = protocol
    flow = parse_flow(f"{name:8} {number} {state} {one}{between}{two}{between}mark=0 use=1\n")
    assert flow == Flow(name, number, *there, back[0], *back[2:])


@pytest.mark.parametrize(
    ("banned", "ports", "expected"),
    [
        ("10.0.0.9", (), [TCP]),
        ("192.0.2.4", (), [TCP]),
        ("192.0.2.5", (), []),
        # The port that was called, or the one behind an address translation.
        ("198.51.100.7", (Port("udp", 15060, 15060),), [NAT]),
        ("198.51.100.7", (Port("udp", 5000, 5060),), [NAT]),
        ("198.51.100.7", (Port("udp", 6000, 6000), Port("tcp", 15060, 15060)), []),
        # What a banned peer answers comes to the caller's port.
        ("192.0.2.4", (Port("tcp", 40000, 40000),), [TCP]),
        ("192.0.2.4", (Port("tcp", 5061, 5061),), []),
    ],
)
def test_which_are_cut(banned: str, ports: tuple[Port, ...], expected: list[str]) -> None:
    """Those of a banned source, to guarded ports."""
    tool = Tool(NAT, TCP)
    assert cuts(tool, host(banned), ports=ports) == Cut(len(expected))
    assert tool.removed == [parse_flow(line) for line in expected]


def test_what_went_by_itself_is_not_counted() -> None:
    """A connection that ended meanwhile was not cut."""
    tool = Tool(*FLOWS)
    assert cuts(tool, host("198.51.100.7")) == Cut(1)
    assert len(tool.removed) == 2


def test_ranges() -> None:
    """A source inside of a banned range is one of it, one beside it is not."""
    first = int(ipaddress.ip_address("198.51.100.0"))
    for last, removed in ((first + 7, 1), (first + 3, 0)):
        assert cuts(Tool(*FLOWS), (4, first, last), (4, 1, 5)) == Cut(removed)


def test_begun_here() -> None:
    """What this host began ends only when asked for."""
    assert cuts(Tool(*FLOWS), host("192.0.2.4"), begun_here=False) == Cut(0)


def test_only_families_that_are_banned() -> None:
    """Where no IPv6 is banned, none is listed."""
    tool = Tool(*FLOWS)
    cuts(tool, host("192.0.2.5"))
    assert tool.started == ["conntrack -L -f ipv4"]


def test_nothing_to_look_for() -> None:
    """No process is started without blocks, or without connections."""
    tool = Tool(*FLOWS)
    assert cuts(tool) == Cut(0)
    assert cut([host("192.0.2.4")], tracked=lambda: 0, stream=tool.list) == Cut(0)
    assert tool.started == []


@pytest.mark.parametrize("breaks", ["list", "remove"])
def test_what_fails_is_said(breaks: str) -> None:
    """A failure is a reason, never an error."""
    assert cuts(Tool(*FLOWS, breaks=breaks), host("192.0.2.4")) == Cut(0, "it is broken")


def test_no_module() -> None:
    """Where the kernel tracks nothing, that is the reason."""

    def absent() -> int:
        raise FirewallError("no module")

    assert cut([host("192.0.2.4")], tracked=absent) == Cut(0, "no module")


def test_very_many() -> None:
    """The time is bounded, and what is left is said."""
    flows = [TCP.replace("192.0.2.4", f"10.1.{n >> 8}.{n & 255}") for n in range(1200)]
    first = int(ipaddress.ip_address("10.1.0.0"))
    done = cuts(Tool(*flows), (4, first, first + 65535))
    assert 490 < done.removed < 510
    assert done.trouble == f"conntrack: no time for {1200 - done.removed} connections more"


def test_the_tool_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the program, the package is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tool, "_FOLDERS", str(tmp_path))
    done = cut([host("192.0.2.4")], tracked=lambda: 1)
    assert done == Cut(0, "the program conntrack is missing (apt-get install conntrack)")


def test_a_tool_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it said until then counts; the time is bounded."""
    program = tmp_path / "conntrack"
    program.write_text(f"#!/bin/sh\necho '{TCP.strip()}'\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fake = Tool()
    done = cut([host("192.0.2.4")], tracked=lambda: 1, remove=fake.remove, within=0.6)
    assert done.removed == 1
    assert "did not end within" in done.trouble


def test_the_tool_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the tool says of missing privileges becomes one line with the fix."""
    program = tmp_path / "conntrack"
    said = "Operation failed: sorry, you must be root or get CAP_NET_ADMIN capability to do this"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = cut([host("192.0.2.4")], tracked=lambda: 1)
    assert "CAP_NET_ADMIN is needed" in done.trouble
    assert "\n" not in done.trouble


def test_what_is_tracked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel's own count is read; without the module, it is named."""
    count = tmp_path / "nf_conntrack_count"
    monkeypatch.setattr(conntrack, "_COUNT", count)
    with pytest.raises(FirewallError, match="nf_conntrack is not loaded"):
        tracked()
    count.write_text("12\n", encoding="ascii")
    assert tracked() == 12
