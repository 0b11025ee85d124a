"""Drops in the kernel, by rules of our own that go again.

They are made in the network namespace that this runs in: a private one, or the host's rules would
be touched (``is_private``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from apiban.bench.machine import BenchError

__all__ = ["apply_rules", "dropped_at_once", "dropped_by_set", "is_private"]


def is_private() -> bool:
    """Tell whether no route leads out of this network namespace.

    Not whether it is another than the first process's: a container may not look at that one.
    """
    devices = set()
    for table, column in (("route", 0), ("ipv6_route", -1)):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            lines = Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()
            devices |= {line.split()[column] for line in lines}
    return devices <= {"Iface", "lo"}


@contextlib.contextmanager
def dropped_by_set(port: int, sources: Sequence[str]) -> Iterator[None]:
    """Drop what listed sources send to a UDP port, where a host's own packets come in."""
    name = f"apiban_bench_{os.getpid()}_{port}"
    with _table(
        f"ip {name}",
        f"set listed {{ type ipv4_addr; elements = {{ {', '.join(sources)} }}; }}\n"
        "chain input { type filter hook input priority filter;\n"
        f"  udp dport {port} ip saddr @listed drop\n}}",
    ):
        yield


@contextlib.contextmanager
def dropped_at_once(port: int) -> Iterator[None]:
    """Drop all that is sent to a UDP port over loopback, at the first place that there is."""
    name = f"apiban_bench_{os.getpid()}_{port}"
    with _table(
        f"netdev {name}",
        'chain ingress { type filter hook ingress device "lo" priority filter;\n'
        f"  udp dport {port} drop\n}}",
    ):
        yield


@contextlib.contextmanager
def _table(name: str, body: str) -> Iterator[None]:
    apply_rules(f"table {name} {{\n{body}\n}}\n")
    try:
        yield
    finally:
        apply_rules(f"delete table {name}\n")


def apply_rules(rules: str) -> None:
    """Feed a script to nft.

    Raises:
        BenchError: nft is missing, or refused them.

    """
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=rules, capture_output=True, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        raise BenchError("nft is not in PATH (Debian has it in nftables)") from None
    if done.returncode:
        raise BenchError(f"nft: {done.stderr.strip()[:200]}")
