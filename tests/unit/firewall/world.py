"""A host as the firewall client meets it: settings, lists, a store, a kernel, others' processes."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from apiban.address import Network, pack, parse_network
from apiban.firewall.client import FirewallClient
from apiban.firewall.conntrack import Cut
from apiban.firewall.dryrun import DryRunBackend
from apiban.firewall.elements import Block
from apiban.firewall.ipset import IpsetBackend
from apiban.firewall.nftables import NftablesBackend
from apiban.firewall.report import FirewallReport, read_report, report_path
from apiban.firewall.rules import Port
from apiban.gate import Board
from apiban.gate.hits import DROPPED, Details, Hits
from apiban.settings import Mode, Settings, load_settings
from apiban.settings.model import FirewallSettings
from apiban.snapshot.origin import Origin
from apiban.snapshot.publish import durable_path, encode_list, runtime_path
from apiban.store import LOCAL, Store

from tests.support.clock import ManualClock
from tests.support.firewall import MemoryBackend, MemoryKernel
from tests.support.log import MemoryLog

HOUR = 3600.0


def block(text: str) -> Block:
    """Give a block by its text."""
    one = parse_network(text)
    return one.family, one.first, one.last


class World:
    """``syncs`` is whether somebody has the sync's lock; ``cuts`` what conntrack was told."""

    def __init__(self, folder: Path) -> None:
        self.state, self.runtime = folder / "state", folder / "runtime"
        self.file = folder / "apiban.toml"
        self.state.mkdir()
        self.runtime.mkdir()
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.kernel = MemoryKernel(self.clock)
        self.backends = {
            made.name: MemoryBackend(
                self.kernel if made is NftablesBackend else MemoryKernel(self.clock),
                count_every=made.count_every,
            )
            for made in (NftablesBackend, IpsetBackend, DryRunBackend)
        }
        self.own: tuple[Network, ...] = (parse_network("192.0.2.10"),)
        self.syncs = True
        self.slept = 0.0  # how long the machine was suspended
        self.cuts: list[Block] = []
        self.spared: list[Block] = []  # whom the last cut left alone
        self.cut_at: list[float] = []  # uptimes
        self.known_at_cut: list[int] = []  # how far the list of the report knew the store then
        self.cut_fails = ""
        self.write_settings()
        self.store = Store(self.state / "store.db")
        self._hits: Hits | None = None
        self._board: Board | None = None
        self._generation = 0
        self._clients: list[FirewallClient] = []

    @property
    def backend(self) -> MemoryBackend:
        """The backend of the default settings."""
        return self.backends["nftables"]

    @property
    def settings(self) -> Settings:
        """The settings as they are read now."""
        return load_settings(self.file, {})

    @property
    def banned(self) -> list[str]:
        """Whom the kernel bans now."""
        return [str(Network(*one)) for one in sorted(self.kernel.alive())]

    @property
    def allowed(self) -> list[str]:
        """Whom the kernel never drops."""
        return [str(Network(*one)) for one in sorted(self.kernel.allowed)]

    @property
    def report(self) -> FirewallReport:
        """What the client says of itself."""
        found = read_report(report_path(self.runtime))
        assert found is not None
        return found

    def write_settings(self, firewall: str = "", top: str = "") -> None:
        """Write the settings anew."""
        self.file.write_text(
            f'{top}\n[firewall]\n{firewall}\n[paths]\nstate = "{self.state}"\n'
            f'runtime = "{self.runtime}"\n',
            encoding="utf-8",
        )

    def ban(self, *texts: str, lasts: float = 1000 * HOUR) -> None:
        """Write bans into the store."""
        now = self.clock.now()
        networks = [parse_network(text) for text in texts]
        self.store.ban(networks, source=LOCAL, reason="", expires=now + lasts, now=now)

    def unban(self, text: str) -> None:
        """Take a ban out of the store."""
        self.store.unban([parse_network(text)], sources=[LOCAL], now=self.clock.now())

    def publish(self, *, mode: Mode = Mode.ENFORCE, durable: bool = True) -> int:
        """Publish the store's list, as a sync process does; give the generation."""
        self._generation += 1
        settings = replace(self.settings, mode=mode)
        content = encode_list(
            self.store, settings, (), generation=self._generation, now=self.clock.now()
        )
        places = [runtime_path(self.runtime, self._generation)]
        if durable:
            places.append(durable_path(self.state))
        for path in places:
            scratch = path.with_name("new")
            scratch.write_bytes(content)
            scratch.replace(path)
        if self._board is not None:
            position = self.store.position()
            self._board.announce(self._generation, keeper=0, handle=0, position=position)
        return self._generation

    def kamailio_runs(self) -> None:
        """Let a Kamailio run here, and say so now."""
        if self._board is None:
            self._board = Board.create(self.runtime / "counters", now=self.clock.now())
            self._board.take_slot(1, os.getpid())
            self._hits = Hits.create(self.runtime / "hits", now=self.clock.now())
        self._board.beat(self.clock.uptime())

    def kamailio_drops(self, source: str, packets: int) -> None:
        """Let Kamailio drop so many packets of a source more."""
        assert self._hits is not None
        now = self.clock.now()
        place = self._hits.place(pack(source), Origin.FEED, Details, now=now)
        assert place is not None
        assert self._hits.add(place, DROPPED, packets, now=now)

    def client(self) -> FirewallClient:
        """Start the client."""
        made = FirewallClient(
            path=self.file,
            environ={},
            clock=self.clock,
            log=self.log,
            make_backend=self._make_backend,
            own=lambda: self.own,
            somebody_syncs=lambda _: self.syncs,
            cut=self._cut,
            grace=60.0,
            slept=lambda: self.slept,
        )
        self._clients.append(made)
        return made

    def _make_backend(self, settings: FirewallSettings) -> MemoryBackend:
        return self.backends[settings.backend]

    def _cut(
        self, blocks: Collection[Block], *, allowed: Collection[Block], ports: tuple[Port, ...]
    ) -> Cut:
        assert ports == self.settings.firewall.ports
        self.spared = sorted(allowed)
        self.cut_at.append(self.clock.uptime())
        report = read_report(report_path(self.runtime))
        self.known_at_cut.append(0 if report is None else report.position)
        if self.cut_fails:
            return Cut(0, self.cut_fails)
        self.cuts += blocks
        return Cut(2 * len(blocks))

    def passes(self, client: FirewallClient, seconds: float, step: float = 0.25) -> None:
        """Let time pass, with a tick each step."""
        end = self.clock.uptime() + seconds
        while self.clock.uptime() < end:
            self.clock.tick(step)
            client.tick()

    def close(self) -> None:
        """Let go of the stores."""
        for client in self._clients:
            client.stop()
        self.store.close()
