"""Sample snapshots and settings for this folder's tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apiban.address import Network, parse_network
from apiban.settings import Mode, Settings, load_settings
from apiban.settings.model import PathSettings
from apiban.snapshot import Origin, encode_snapshot
from apiban.snapshot.compile import Range, Ranges

END = 1_900_000_000


def sample(generation: int = 7, mode: Mode = Mode.ENFORCE) -> bytes:
    """Give a small snapshot with ranges of both families."""
    ipv4 = [ban("192.0.2.1", END), ban("198.51.100.0/24", END + 1), ban("203.0.113.9", END)]
    ipv6 = [ban("2001:db8::1", END), ban("2001:db8:1::/64", END + 2)]
    return encode_snapshot(
        generation=generation, created=1_800_000_000.5, mode=mode, ipv4=ipv4, ipv6=ipv6
    )


def only(
    *texts: str,
    generation: int = 1,
    mode: Mode = Mode.ENFORCE,
    expires: int = END,
    origin: Origin = Origin.FEED,
) -> bytes:
    """Give a snapshot of these IPv4 addresses, in ascending order."""
    ipv4: Ranges = [ban(text, expires, origin) for text in texts]
    return encode_snapshot(generation=generation, created=0, mode=mode, ipv4=ipv4, ipv6=[])


def ban(text: str, expires: int, origin: Origin = Origin.FEED) -> Range:
    """Give one range."""
    network = parse_network(text)
    return network.first, network.last, expires, origin


def settings(
    state: Path,
    runtime: Path,
    *,
    allow: tuple[Network, ...] = (),
    mode: Mode = Mode.ENFORCE,
) -> Settings:
    """Give default settings with these folders."""
    defaults = load_settings(state / "no-such-file.toml", {})
    return replace(
        defaults,
        mode=mode,
        allow=replace(defaults.allow, networks=allow),
        paths=PathSettings(state=state, runtime=runtime),
    )
