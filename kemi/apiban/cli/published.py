"""The list that the workers use, as far as a command can read it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from apiban.cli.host import Host
from apiban.errors import SnapshotError
from apiban.snapshot import Snapshot, load_snapshot
from apiban.snapshot.publish import durable_path, runtime_path

__all__ = ["Published", "published"]


@dataclass(frozen=True, slots=True)
class Published:
    """A list, and whether the workers of a running Kamailio use it now.

    Where none runs it is the one that the next start begins with.
    """

    snapshot: Snapshot
    in_use: bool


def published(host: Host) -> Published | None:
    """Read the published list; None when there is none, or none that can be read."""
    paths, board = host.settings.paths, host.board
    if board is None:
        with contextlib.suppress(SnapshotError):
            return Published(load_snapshot(durable_path(paths.state)), in_use=False)
        return None
    for _ in range(2):  # a newer one may come while the file of the last is looked for
        generation = board.generation
        for path in (runtime_path(paths.runtime, generation), durable_path(paths.state)):
            with contextlib.suppress(SnapshotError):
                snapshot = load_snapshot(path)
                if snapshot.generation >= generation:
                    return Published(snapshot, in_use=True)
    return None
