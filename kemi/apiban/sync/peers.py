"""Whom modules of the running Kamailio trust, for the sync process: ``runtime/trusted.json``.

Written by the rtimer process inside Kamailio alone, whole and by rename, when it changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from apiban.sync.document import put_document

__all__ = ["MODULES", "Peers", "peers_path", "read_peers", "write_peers"]

MODULES: Final = ("dispatcher", "permissions")
_LARGEST: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Peers:
    """What each module said: addresses, networks or host names, each with why it is trusted.

    None is for a module of which nothing is known, as when it could not be asked.
    """

    dispatcher: Mapping[str, str] | None = None
    permissions: Mapping[str, str] | None = None

    def of(self, module: str) -> Mapping[str, str] | None:
        """Give what one of ``MODULES`` said."""
        return self.dispatcher if module == "dispatcher" else self.permissions


def peers_path(runtime: Path) -> Path:
    """Give where the file is."""
    return runtime / "trusted.json"


def write_peers(path: Path, peers: Peers) -> None:
    """Put the file in its place.

    Raises:
        OSError

    """
    put_document(path, asdict(peers))


def read_peers(path: Path) -> Peers | None:
    """Read the file; None when there is none that this version can read."""
    try:
        with path.open("rb") as file:
            raw: Any = json.loads(file.read(_LARGEST))
        return Peers(*(_named(raw[module]) for module in MODULES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _named(raw: Any) -> dict[str, str] | None:
    return None if raw is None else {str(name): str(why) for name, why in raw.items()}
