"""The snapshot: what is banned now, compiled into flat columns that every SIP worker maps."""

from apiban.snapshot.compile import Ranges, compile_ranges
from apiban.snapshot.file import load_snapshot, map_snapshot, share_snapshot, write_snapshot
from apiban.snapshot.format import Snapshot, encode_snapshot
from apiban.snapshot.origin import Origin

__all__ = [
    "Origin",
    "Ranges",
    "Snapshot",
    "compile_ranges",
    "encode_snapshot",
    "load_snapshot",
    "map_snapshot",
    "share_snapshot",
    "write_snapshot",
]
