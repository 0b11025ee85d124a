"""The snapshot's bytes, and the look-up in them.

In the machine's own byte order (the file never leaves it), columns aligned to 8 bytes::

    header   64 bytes: magic, format, mode, generation, created, counts, checksums (see _HEADER)
    IPv4     index[65537] u32, first[n4] u32, last[n4] u32, expires[n4] u32, origin[n4] u8
    IPv6     first_high[n6] u64, first_low[n6] u64, last_high, last_low u64, expires[n6] u32,
             origin[n6] u8

``index[b]`` tells how many IPv4 ranges begin below the block b.b.0.0/16: the look-up bisects within
one block, so that it is nearly flat in the list's size. ``expires`` is in seconds since 1970; an
entry is alive while ``now < expires``. ``origin`` tells who banned it: see origin.py. The
publisher verifies the checksum of the whole file; a reader that maps it checks the header and the
size alone, so that a new list never makes a packet wait.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, Literal

from apiban.address import Network, pack
from apiban.errors import AddressError, SnapshotError
from apiban.settings.model import Mode
from apiban.snapshot.compile import Range, Ranges

__all__ = ["FOREVER", "Snapshot", "encode_snapshot"]

FOREVER: Final = 0xFFFFFFFF

_Code = Literal["B", "I", "Q"]
_SIZES: Final = {"B": 1, "I": 4, "Q": 8}

_MAGIC: Final = b"APIBANSN"
_FORMAT: Final = 3
# magic, format, mode, generation, created, IPv4 count, IPv6 count, body's CRC, spare, header's CRC
_HEADER: Final = struct.Struct("=8sIIQQIIIxxxx12xI")
_LOW: Final = (1 << 64) - 1
_BLOCKS: Final = 1 << 16


def _padded(column: bytes) -> bytes:
    return column + bytes(-len(column) % 8)


def _column(code: _Code, numbers: Iterable[int]) -> bytes:
    return _padded(array(code, numbers).tobytes())


def encode_snapshot(
    *, generation: int, created: float, mode: Mode, ipv4: Ranges, ipv6: Ranges
) -> bytes:
    """Give the file's bytes for sorted, disjoint ranges of either family."""
    first4 = array("I", (one[0] for one in ipv4))
    body = b"".join(
        (
            _column("I", _index(first4)),
            _column("I", first4),
            _column("I", (one[1] for one in ipv4)),
            _column("I", (one[2] for one in ipv4)),
            _column("B", (one[3] for one in ipv4)),
            _column("Q", (one[0] >> 64 for one in ipv6)),
            _column("Q", (one[0] & _LOW for one in ipv6)),
            _column("Q", (one[1] >> 64 for one in ipv6)),
            _column("Q", (one[1] & _LOW for one in ipv6)),
            _column("I", (one[2] for one in ipv6)),
            _column("B", (one[3] for one in ipv6)),
        )
    )
    fields = (_MAGIC, _FORMAT, mode, generation, int(created), len(ipv4), len(ipv6))
    unsigned = _HEADER.pack(*fields, zlib.crc32(body), 0)
    return _HEADER.pack(*fields, zlib.crc32(body), zlib.crc32(unsigned[:-4])) + body


def _index(first4: array[int]) -> array[int]:
    """Count for each block the ranges that begin below it, and at last all of them."""
    index = array("I")
    for at, first in enumerate(first4):
        missing = (first >> 16) + 1 - len(index)
        if missing > 0:
            index.extend(array("I", [at]) * missing)
    index.extend(array("I", [len(first4)]) * (_BLOCKS + 1 - len(index)))
    return index


class Snapshot:
    """A snapshot over any buffer of its bytes; the columns are views, nothing is copied.

    Raises:
        SnapshotError: the buffer is no snapshot of this format, or not as long as it says.

    """

    __slots__ = (
        "_body",
        "_crc",
        "_expires4",
        "_expires6",
        "_first4",
        "_high6",
        "_index4",
        "_last4",
        "_last_high6",
        "_last_low6",
        "_low6",
        "_origin4",
        "_origin6",
        "buffer",
        "created",
        "generation",
        "mode",
    )

    def __init__(self, buffer: memoryview) -> None:
        if len(buffer) < _HEADER.size:
            raise SnapshotError("the snapshot is shorter than its header")
        magic, form, mode, generation, created, n4, n6, crc, header_crc = _HEADER.unpack_from(
            buffer
        )
        if magic != _MAGIC:
            raise SnapshotError("the file is not a snapshot")
        if form != _FORMAT:
            raise SnapshotError(f"the snapshot has format {form}; this version knows {_FORMAT}")
        if zlib.crc32(buffer[: _HEADER.size - 4]) != header_crc or mode not in set(Mode):
            raise SnapshotError("the snapshot's header is damaged")
        self.buffer = buffer
        self.mode = Mode(mode)
        self.generation: int = generation
        self.created: int = created
        self._crc: int = crc
        self._body = buffer[_HEADER.size :]
        sizes = (4 * (_BLOCKS + 1), *3 * (4 * n4,), n4, *4 * (8 * n6,), 4 * n6, n6)
        if len(self._body) != sum(map(_aligned, sizes)):
            raise SnapshotError("the snapshot is cut short, or longer than its header says")
        columns = _Columns(self._body)
        self._index4 = columns.take("I", _BLOCKS + 1)
        self._first4 = columns.take("I", n4)
        self._last4 = columns.take("I", n4)
        self._expires4 = columns.take("I", n4)
        self._origin4 = columns.take("B", n4)
        self._high6 = columns.take("Q", n6)
        self._low6 = columns.take("Q", n6)
        self._last_high6 = columns.take("Q", n6)
        self._last_low6 = columns.take("Q", n6)
        self._expires6 = columns.take("I", n6)
        self._origin6 = columns.take("B", n6)

    def __len__(self) -> int:
        """Give the number of ranges."""
        return len(self._first4) + len(self._high6)

    @property
    def counts(self) -> tuple[int, int]:
        """Give the numbers of IPv4 and of IPv6 ranges."""
        return len(self._first4), len(self._high6)

    def verify(self) -> None:
        """Check every byte: for the publisher and for the start, not for a worker.

        Raises:
            SnapshotError: the bytes are not those that were written.

        """
        if zlib.crc32(self._body) != self._crc:
            raise SnapshotError("the snapshot's checksum does not match its bytes")

    def expires(self, source: str) -> int:
        """Give when the ban of this source ends (seconds since 1970); 0 when there is none."""
        found = self.find(source)
        return 0 if found is None else found[0]

    def find(self, source: str) -> tuple[int, int] | None:
        """Give when the ban of this source ends (seconds since 1970), and its origin's number.

        None when there is no ban. ``source`` is an address in any spelling; what is no address is
        not banned.
        """
        try:
            raw = pack(source)
        except AddressError:
            return None
        if len(raw) == 4:
            number = int.from_bytes(raw, "big")
            block, index = number >> 16, self._index4
            at = bisect_right(self._first4, number, index[block], index[block + 1]) - 1
            if at < 0 or number > self._last4[at]:
                return None
            return self._expires4[at], self._origin4[at]
        high, low = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")
        at = self._before6(high, low)
        if at < 0 or (high, low) > (self._last_high6[at], self._last_low6[at]):
            return None
        return self._expires6[at], self._origin6[at]

    def overlaps(self, network: Network) -> bool:
        """Tell whether any range shares an address with the network."""
        if network.family == 4:
            at = bisect_right(self._first4, network.last) - 1
            return at >= 0 and self._last4[at] >= network.first
        at = self._before6(network.last >> 64, network.last & _LOW)
        return at >= 0 and (self._last_high6[at] << 64 | self._last_low6[at]) >= network.first

    def _before6(self, high: int, low: int) -> int:
        """Find the last IPv6 range that starts at or before (high, low); -1 when none does."""
        stop = bisect_right(self._high6, high)
        start = bisect_left(self._high6, high, 0, stop)
        return bisect_right(self._low6, low, start, stop) - 1

    def ranges(self) -> Iterable[tuple[int, Range]]:
        """Give (family, range) for each range: for tools, not for packets."""
        for at, first in enumerate(self._first4):
            yield 4, (first, self._last4[at], self._expires4[at], self._origin4[at])
        for at, high in enumerate(self._high6):
            last = self._last_high6[at] << 64 | self._last_low6[at]
            yield (
                6,
                (high << 64 | self._low6[at], last, self._expires6[at], self._origin6[at]),
            )

    def block(self, at: int) -> Network:
        """Give the addresses of one range, counted from 0, IPv4 before IPv6; it need be no CIDR."""
        ipv4 = len(self._first4)
        if at < ipv4:
            return Network(4, self._first4[at], self._last4[at])
        at -= ipv4
        first = self._high6[at] << 64 | self._low6[at]
        return Network(6, first, self._last_high6[at] << 64 | self._last_low6[at])


def _aligned(size: int) -> int:
    return size + -size % 8


class _Columns:
    """Cuts the body into its columns."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    def take(self, code: _Code, count: int) -> memoryview[int]:
        size = count * _SIZES[code]
        column = self._body[self._at : self._at + size]
        self._at += _aligned(size)
        return column.cast(code)
