"""The settings as frozen records. What each means and may be stands in ``schema.py``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from apiban.address import Network
from apiban.settings.secret import Secret

__all__ = [
    "AllowSettings",
    "EdgeSettings",
    "FeedSettings",
    "LogSettings",
    "Mode",
    "NodeSettings",
    "PathSettings",
    "Settings",
    "Upstream",
]


class Mode(IntEnum):
    """What happens to a listed source; the number is what the snapshot's header holds."""

    ENFORCE = 1
    SHADOW = 2
    OFF = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Upstream:
    """A SIP server behind the edge; ``address`` is what exempts its packets from the gate."""

    address: Network
    port: int
    transport: str

    @property
    def uri(self) -> str:
        """The SIP URI to send to, such as ``sip:[2001:db8::1]:5060;transport=tcp``."""
        host = f"[{self.address}]" if self.address.family == 6 else str(self.address)
        return f"sip:{host}:{self.port};transport={self.transport}"


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """The APIBAN service to sync from. Times are in seconds."""

    url: str
    key: Secret
    key_file: Path | None
    version: int
    set: str
    interval: float
    timeout: float
    requests: int
    window: float
    reconcile_every: float
    confirm_passes: int
    confirm_after: float
    retry_unauthorized: float
    ban_for: float
    stale_max: float
    max_entries: int
    widest_ipv4: int
    widest_ipv6: int
    accept_private: bool
    allow_http: bool
    ca_file: Path | None

    @property
    def identity(self) -> str:
        """Name the list that a cursor belongs to; it holds no key."""
        return f"{self.url}|v{self.version}|{self.set}"


@dataclass(frozen=True, slots=True)
class AllowSettings:
    """Sources that are never dropped."""

    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The other nodes that this one works with."""

    peers: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """The edge proxy's routing."""

    upstreams: tuple[Upstream, ...]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How much is said of drops."""

    interval: float
    first_drops: int


@dataclass(frozen=True, slots=True)
class PathSettings:
    """Where the durable state and the runtime files are."""

    state: Path
    runtime: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that an operator can set."""

    mode: Mode
    feed: FeedSettings
    allow: AllowSettings
    node: NodeSettings
    edge: EdgeSettings
    log: LogSettings
    paths: PathSettings

    @property
    def exempt(self) -> tuple[Network, ...]:
        """The sources that the settings save from every ban: allowed, upstreams, peers."""
        upstreams = tuple(upstream.address for upstream in self.edge.upstreams)
        return self.allow.networks + upstreams + self.node.peers
