"""What the SIP workers tell the sync process: short lines, by way of the process that keeps it.

A worker writes into a pipe that was made before the fork, the keeper's process empties it at its
ticks, and hands the lines on. A line is at most ``PIPE_BUF`` bytes, so that the kernel keeps those
of several workers apart. Nobody waits: what finds the pipe full is lost, and learned again.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["End", "Notices", "read_notice"]

_LONGEST: Final = select.PIPE_BUF
_CHUNK: Final = 65_536


class End:
    """One end of the pipe, closed when nobody has it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Notices:
    """The pipe. ``ends`` are its two, which ``app_python.reload`` hands over."""

    def __init__(self, ends: tuple[End, End] | None = None) -> None:
        if ends is None:
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ends = End(reading), End(writing)
        self.ends = ends
        self._rest = b""

    def send(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Tell the sync process something of a kind; tell whether there was room for it."""
        line = f"{kind} {json.dumps(fields)}\n".encode("ascii")
        if len(line) > _LONGEST:
            return False
        try:
            os.write(self.ends[1].number, line)
        except BlockingIOError:
            return False
        return True

    def take(self) -> list[bytes]:
        """Give the lines that came since, without their ends; for one process alone."""
        try:
            data = os.read(self.ends[0].number, _CHUNK)
        except BlockingIOError:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


def read_notice(line: bytes) -> tuple[str, dict[str, Any]]:
    """Give a line's kind and fields.

    Raises:
        ValueError: it is none of ours.

    """
    kind, _, text = line.decode("ascii").partition(" ")
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("not the fields of a notice")  # noqa: TRY004 - one error for what is none
    return kind, fields
