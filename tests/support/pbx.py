"""A host that the firewall client protects: its settings and commands, and SIPp as its PBX."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from apiban.firewall.report import FirewallReport, read_report, report_path

from tests.contract.firewall.world import PORT, World
from tests.support.node import NodeUnderTest, wait_for
from tests.support.service import Service
from tests.support.sip import message

__all__ = ["ADDRESS", "Pbx"]

ADDRESS = "10.77.1.1"  # the host's, in ``World``


class Pbx:
    """Commands and services with the settings of a node whose Kamailio need not run."""

    def __init__(self, world: World, node: NodeUnderTest, **settings: Any) -> None:
        self.world, self.node = world, node
        self.state, self.runtime = node.folder / "state", node.folder / "runtime"
        self.state.mkdir(exist_ok=True)
        node.write_settings(firewall__interval=1, **settings)

    def service(self, *words: str, before: tuple[str, ...] = ()) -> Service:
        """Give a service that is not started yet."""
        log = self.node.folder / f"{words[0]}.log"
        return Service(log, *words, environ=self.node.environ(), before=before)

    def sync(self) -> Service:
        """Give the sync process of a host without Kamailio."""
        return self.service("sync", "--forever")

    def client(self, *, before: tuple[str, ...] = ()) -> Service:
        """Give the firewall client."""
        return self.service("firewall", "run", before=before)

    def apiban(self, *words: str, status: int = 0) -> str:
        """Run a command; give what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "apiban.cli", *words],
            env=self.node.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def report(self) -> FirewallReport | None:
        """Give what the client says of itself."""
        return read_report(report_path(self.runtime))

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Let SIPp's own UAS be the PBX."""
        words = ["sipp", "-sn", "uas", "-i", ADDRESS, "-p", f"{PORT}", "-aa", "-nostdin"]
        with subprocess.Popen(
            [*words, "-ci", "127.0.0.1"],
            cwd=self.node.folder,
            env={**os.environ, "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_for(lambda: self.hears("10.77.1.2"), "an answer of SIPp's")
                yield
            finally:
                process.kill()

    def hears(self, source: str, method: str = "INVITE", *, within: float = 0.4) -> bool:
        """Tell whether a source outside gets an answer to a request."""
        with closing(self.world.sender(source)) as one:
            port = one.getsockname()[1]
            one.settimeout(within)
            one.sendto(message(method, source, port, "udp", ADDRESS), (ADDRESS, PORT))
            try:
                return one.recv(65536).startswith(b"SIP/2.0 ")
            except TimeoutError:
                return False

    def calls(self, source: str, count: int) -> int:
        """Let SIPp call from outside; give how many calls it made to their end."""
        words = ["sipp", f"{ADDRESS}:{PORT}", "-sn", "uac", "-i", source, "-m", f"{count}"]
        words += ["-r", "10", "-d", "100", "-timeout", "10", "-nostdin", "-ci", "127.0.0.1"]
        words += ["-trace_stat", "-stf", str(self.node.folder / "calls.csv")]
        self.world.outside(
            lambda: subprocess.run(
                words,
                cwd=self.node.folder,
                env={**os.environ, "TERM": "dumb"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=25,
                check=False,
            )
        )
        lines = (self.node.folder / "calls.csv").read_text(encoding="utf-8").splitlines()
        return int(
            dict(zip(*(line.split(";") for line in (lines[0], lines[-1])), strict=True))[
                "SuccessfulCall(C)"
            ]
        )
