"""What nft does not tell of the kernel's nf_tables, or only after it has read whole sets.

The number of the rule set is one more after each transaction of anybody's; a named counter is
what it counted; a table's frame is all of it but what its sets hold. They are of the network
namespace that the calling thread is in.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from apiban.errors import FirewallError
from apiban.firewall.elements import Counter

__all__ = ["counter", "following", "frame", "ruleset_generation"]

# linux/netlink.h, nfnetlink.h, nf_tables.h; headers are in the host's order, values in the net's
_NETLINK_NETFILTER: Final = 12
_NLM_F_REQUEST: Final = 1
_NLM_F_DUMP: Final = 0x300
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NF_TABLES: Final = 10 << 8
_NFPROTO_INET: Final = 1
_FRAME: Final = (1, 4, 7)  # NFT_MSG_GETTABLE, _GETCHAIN, _GETRULE; in their answers
_NFTA_TABLE: Final = 1  # is the name of the table
_NFT_MSG_GETGEN: Final = 16
_NFT_MSG_GETOBJ: Final = 19
_NFTA_GEN_ID: Final = 1
_NFTA_OBJ_TABLE: Final = 1
_NFTA_OBJ_NAME: Final = 2
_NFTA_OBJ_TYPE: Final = 3
_NFTA_OBJ_DATA: Final = 4
_NFT_OBJECT_COUNTER: Final = 1
_NFTA_COUNTER_BYTES: Final = 1
_NFTA_COUNTER_PACKETS: Final = 2
_TYPE_BITS: Final = 0x3FFF  # above them are flags
_HEADER: Final = struct.Struct("=IHHII")
_FAMILY: Final = struct.Struct("=BBH")
_ERROR: Final = struct.Struct("=i")
_ATTRIBUTE: Final = struct.Struct("=HH")
_PATIENCE: Final = 2.0
_LAST: Final = 0xFFFFFFFF  # the largest number that a rule set can have
_ROOM: Final = 1 << 17
_TRIES: Final = 10


def ruleset_generation() -> int:
    """Ask for the number; elements that the kernel ends itself do not count.

    Raises:
        FirewallError: CAP_NET_ADMIN is missing, or the kernel's nf_tables.

    """
    try:
        answer = dict(_attributes(_ask(_NFT_MSG_GETGEN, 0, b"")))
        return int.from_bytes(answer[_NFTA_GEN_ID], "big")
    except (OSError, KeyError) as error:
        raise _trouble(error) from None


def following(generation: int, changes: int = 1) -> int:
    """Give the number after so many transactions; the kernel leaves 0 out when it begins anew."""
    return (generation - 1 + changes) % _LAST + 1


def frame(table: str) -> tuple[bytes, ...] | None:
    """Ask for a table of the family inet, its chains and rules; None when it is not there.

    Two are equal only if nobody changed, or made anew, any of these: each has a handle that no
    other one gets. What is in the sets makes no difference, and costs nothing.

    Raises:
        FirewallError: CAP_NET_ADMIN is missing, or the kernel's nf_tables.

    """
    name = table.encode() + b"\0"
    tries = _TRIES
    while True:
        try:
            tables, chains, rules = (
                tuple(one for one in _dump(what) if dict(_attributes(one)).get(_NFTA_TABLE) == name)
                for what in _FRAME
            )
        except InterruptedError as error:
            tries -= 1
            if not tries:
                raise FirewallError(f"nftables: {error.strerror} all the time") from None
        except OSError as error:
            raise _trouble(error) from None
        else:
            return (*tables, b"", *chains, b"", *rules) if tables else None


def counter(table: str, name: str) -> Counter | None:
    """Ask for a named counter of a table of the family inet; None when it is not there.

    Raises:
        FirewallError: CAP_NET_ADMIN is missing, or the kernel's nf_tables.

    """
    which = b"".join(
        (
            _attribute(_NFTA_OBJ_TABLE, table.encode() + b"\0"),
            _attribute(_NFTA_OBJ_NAME, name.encode() + b"\0"),
            _attribute(_NFTA_OBJ_TYPE, _NFT_OBJECT_COUNTER.to_bytes(4, "big")),
        )
    )
    try:
        answer = dict(_attributes(_ask(_NFT_MSG_GETOBJ, _NFPROTO_INET, which)))
        counted = dict(_attributes(answer[_NFTA_OBJ_DATA]))
        return Counter(
            int.from_bytes(counted[_NFTA_COUNTER_PACKETS], "big"),
            int.from_bytes(counted[_NFTA_COUNTER_BYTES], "big"),
        )
    except FileNotFoundError:
        return None
    except (OSError, KeyError) as error:
        raise _trouble(error) from None


def _ask(message: int, family: int, attributes: bytes) -> bytes:
    """Give the attributes of the one message that answers."""
    body = _FAMILY.pack(family, 0, 0) + attributes
    header = _HEADER.pack(_HEADER.size + len(body), _NF_TABLES | message, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.sendto(header + body, (0, 0))
        answer = kernel.recv(8192)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        number = -_ERROR.unpack_from(answer, _HEADER.size)[0]
        raise OSError(number, os.strerror(number))
    return answer[_HEADER.size + _FAMILY.size :]


def _dump(message: int) -> Iterator[bytes]:
    """Give the attributes of each thing of the family inet that there is.

    Raises:
        InterruptedError: somebody changed them meanwhile.

    """
    body = _FAMILY.pack(_NFPROTO_INET, 0, 0)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    header = _HEADER.pack(_HEADER.size + len(body), _NF_TABLES | message, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.sendto(header + body, (0, 0))
        while True:
            answer, at = kernel.recv(_ROOM), 0
            while at < len(answer):
                size, kind, flags, _, _ = _HEADER.unpack_from(answer, at)
                if kind == _NLMSG_ERROR:
                    number = -_ERROR.unpack_from(answer, at + _HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                if flags & _NLM_F_DUMP_INTR:
                    raise InterruptedError(errno.EINTR, "others change the rules")
                if kind == _NLMSG_DONE:
                    return
                yield answer[at + _HEADER.size + _FAMILY.size : at + size]
                at += size + 3 & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE_BITS, data[at + _ATTRIBUTE.size : at + size]
        at += max(size + 3 & ~3, _ATTRIBUTE.size)


def _trouble(error: Exception) -> FirewallError:
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES):
        return FirewallError(
            "nftables: the kernel does not permit it: CAP_NET_ADMIN is needed (run it as root, or "
            "as the service apiban-firewall)"
        )
    said = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
    return FirewallError(
        f"nftables: the kernel does not answer ({said}): its module nf_tables is needed "
        '(modprobe nf_tables; or set firewall.backend to "ipset")'
    )
