"""Connections that conntrack knows: as its tool writes them, and their removal over netlink.

``conntrack -D`` looks through all connections for each source: 60 ms with 20,000 of them. The
kernel itself removes the one that is named at once.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from apiban.errors import FirewallError

__all__ = ["Flow", "parse_flow", "remove"]

_TUPLE: Final = (
    r"src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+)| type=(\d+) code=(\d+)(?: id=(\d+))?)?"
)
_FLOW: Final = re.compile(rf"(\w+) +(\d+) .*?\b{_TUPLE}.*? {_TUPLE}(?:.*? zone=(\d+))?", re.ASCII)

# linux/netlink.h, nfnetlink.h and nfnetlink_conntrack.h
_NETLINK_NETFILTER: Final = 12
_NLM_F_REQUEST_ACK: Final = 1 | 4
_CT_DELETE: Final = 1 << 8 | 2
_NESTED: Final = 1 << 15
_CTA_TUPLE_ORIG: Final = 1 | _NESTED
_CTA_TUPLE_IP: Final = 1 | _NESTED
_CTA_TUPLE_PROTO: Final = 2 | _NESTED
_CTA_ZONE: Final = 18
_PORTS: Final = 2  # CTA_PROTO_SRC_PORT; behind it that of the destination
_ICMP: Final = 4  # CTA_PROTO_ICMP_ID; behind it type and code
_ICMPV6: Final = 7
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")
_PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection: who began it, and who answers; ports are 0 where the protocol has none.

    ``port`` is the one that was called and ``caller_port`` the caller's own; ``real_port`` and
    ``real_caller_port`` are what they are on the other side of an address translation, where
    ``answerer`` is who was called at ``target``. ``icmp`` is type, code and id.
    """

    protocol: str
    number: int
    caller: str
    target: str
    caller_port: int
    port: int
    answerer: str
    real_port: int
    real_caller_port: int
    icmp: tuple[int, int, int] | None = None
    zone: int = 0


def parse_flow(line: str) -> Flow | None:
    """Read a line of ``conntrack -L``; None when it is none of a connection."""
    match = _FLOW.match(line)
    if match is None:
        return None
    protocol, number, caller, target, *there = match.groups("0")[:9]
    answerer, _, real_port, real_caller_port, *_, zone = match.groups("0")[9:]
    icmp = (int(there[2]), int(there[3]), int(there[4])) if match[7] else None
    return Flow(
        protocol,
        int(number),
        caller,
        target,
        int(there[0]),
        int(there[1]),
        answerer,
        int(real_port),
        int(real_caller_port),
        icmp,
        int(zone),
    )


def remove(flows: Sequence[Flow]) -> Iterator[bool]:
    """Remove connections, one each time that it is asked; tell whether it was still there.

    Raises:
        FirewallError: the kernel does not let us, or does not answer.

    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
            kernel.settimeout(_PATIENCE)
            for flow in flows:
                kernel.sendto(_removal(flow), (0, 0))
                yield _is_done(kernel.recv(8192))
    except PermissionError:
        raise FirewallError(
            "conntrack: the kernel does not permit it: CAP_NET_ADMIN is needed (run it as root, or"
            " as the service apiban-firewall)"
        ) from None
    except OSError as error:
        raise FirewallError(
            f"conntrack: the kernel does not remove a connection: {error.strerror or error}"
            " (modprobe nf_conntrack_netlink)"
        ) from None


def _is_done(answer: bytes) -> bool:
    number = -_ERROR.unpack_from(answer, _HEADER.size)[0]
    if number not in {0, errno.ENOENT}:
        raise OSError(number, errno.errorcode.get(number, str(number)))
    return bool(number == 0)


def _removal(flow: Flow) -> bytes:
    family = socket.AF_INET6 if ":" in flow.caller else socket.AF_INET
    first = 3 if family == socket.AF_INET6 else 1  # CTA_IP_V6_SRC, CTA_IP_V4_SRC
    addresses = _attribute(first, socket.inet_pton(family, flow.caller)) + _attribute(
        first + 1, socket.inet_pton(family, flow.target)
    )
    protocol = _attribute(1, bytes([flow.number]))
    if flow.icmp is None:
        protocol += _attribute(_PORTS, flow.caller_port.to_bytes(2, "big"))
        protocol += _attribute(_PORTS + 1, flow.port.to_bytes(2, "big"))
    else:
        kind, code, number = flow.icmp
        at = _ICMPV6 if family == socket.AF_INET6 else _ICMP
        protocol += _attribute(at, number.to_bytes(2, "big"))
        protocol += _attribute(at + 1, bytes([kind])) + _attribute(at + 2, bytes([code]))
    ways = _attribute(_CTA_TUPLE_IP, addresses) + _attribute(_CTA_TUPLE_PROTO, protocol)
    body = bytes([family, 0, 0, 0]) + _attribute(_CTA_TUPLE_ORIG, ways)
    if flow.zone:
        body += _attribute(_CTA_ZONE, flow.zone.to_bytes(2, "big"))
    return _HEADER.pack(_HEADER.size + len(body), _CT_DELETE, _NLM_F_REQUEST_ACK, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
