"""The settings as frozen records. What each means and may be stands in ``schema.py``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from apiban.address import Network
from apiban.firewall.rules import Established, Hook, Port
from apiban.settings.secret import Secret

__all__ = [
    "AllowSettings",
    "CallSettings",
    "DetectSettings",
    "EdgeSettings",
    "FeedSettings",
    "FirewallSettings",
    "HtableSettings",
    "LogSettings",
    "Mode",
    "NodeSettings",
    "PathSettings",
    "ReportSettings",
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
    max_growth: float
    accept_private: bool
    allow_http: bool
    ca_file: Path | None

    @property
    def identity(self) -> str:
        """Name the list that a cursor belongs to; it holds no key."""
        return f"{self.url}|v{self.version}|{self.set}"


@dataclass(frozen=True, slots=True)
class AllowSettings:
    """Sources that are never dropped.

    ``from_kamailio`` names the modules whose peers are never dropped either; no
    ``permissions_groups`` are all groups.
    """

    networks: tuple[Network, ...]
    from_kamailio: tuple[str, ...]
    permissions_groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The other nodes that this one works with."""

    peers: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """The edge proxy's routing."""

    upstreams: tuple[Upstream, ...]


@dataclass(frozen=True, slots=True)
class CallSettings:
    """``grace``: for how many seconds a listed peer's answered calls still go on; 0 is off."""

    grace: float


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """What gets a source banned by this node itself; a number of 0 turns its rule off.

    ``failures`` refused credentials, ``users`` different users with refused credentials, a user
    agent that holds one of ``agents`` (in lower case), ``requests`` of any kind: each within its
    window, with its ban. Windows and bans are in seconds.
    """

    enabled: bool
    failures: int
    failures_window: float
    failures_ban: float
    users: int
    users_window: float
    users_ban: float
    agents: tuple[str, ...]
    agents_ban: float
    requests: int
    requests_window: float
    requests_ban: float


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """The feed that sightings are reported to. Times are in seconds; no ``url``: to nobody."""

    url: str
    key: Secret
    key_file: Path | None
    interval: float
    batch: int
    timeout: float
    allow_http: bool
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class HtableSettings:
    """``mirror`` is a hash table of the operator's that has the list too; empty: none."""

    mirror: str


@dataclass(frozen=True, slots=True)
class FirewallSettings:
    """The firewall client. Times are in seconds.

    ``sources`` is "all" or "flooding": then only those that Kamailio drops more than ``flood_rate``
    packets a second of are in the kernel, for ``flood_for`` after the last time that they did.
    No ``ports`` are all, no ``interfaces`` are all.
    """

    backend: Literal["nftables", "ipset", "dry-run"]
    sources: Literal["all", "flooding"]
    flood_rate: float
    flood_for: float
    hooks: tuple[Hook, ...]
    ports: tuple[Port, ...]
    interfaces: tuple[str, ...]
    established: Established
    conntrack: bool
    interval: float
    on_exit: Literal["keep", "remove"]


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
    calls: CallSettings
    detect: DetectSettings
    report: ReportSettings
    htable: HtableSettings
    firewall: FirewallSettings
    log: LogSettings
    paths: PathSettings

    @property
    def exempt(self) -> tuple[Network, ...]:
        """The sources that the settings save from every ban: allowed, upstreams, peers."""
        upstreams = tuple(upstream.address for upstream in self.edge.upstreams)
        return self.allow.networks + upstreams + self.node.peers
