"""What a dropped packet costs, with each way to drop it.

The flood comes in bursts, faster than all but the cheapest take it: the worker hardly ever waits,
and finds the next packet in its socket. At a trickle each packet wakes the worker up besides, which
costs the kernel more than all the rest, and the same with all of them.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from apiban.bench.check import check_node
from apiban.bench.flood import BURST
from apiban.bench.lists import CROWD, CROWDING, FEW, LISTED
from apiban.bench.machine import BenchError, cpu_seconds, udp_socket
from apiban.bench.nftables import dropped_at_once, dropped_by_set
from apiban.bench.nodes import HOST, OURS, SETUPS, Node
from apiban.bench.rounds import Figure, alternate
from apiban.trial.stage import free_port

__all__ = ["CROWDED", "NFTABLES", "Sent", "drain", "measure_drops", "measure_kernel_drops"]
__all__ += ["send_flood", "worker_cost"]

NFTABLES: Final = "nftables set (kernel)"
CROWDED: Final = f"ours, pre-parse, {len(CROWDING):,} sources"
_CROWD_BURST: Final = 5  # packets of one source before the next one's
_RATE: Final = 300_000  # more than a worker takes with any of the set-ups but the cheapest
_DRAIN_TIMEOUT: Final = 30.0
_BOOKED: Final = 0.02  # seconds until the scheduler has booked a sleeping process's last stretch


@dataclass(frozen=True, slots=True)
class Sent:
    """What the flood did: packets, its own CPU seconds."""

    packets: int
    cpu: float


def send_flood(target: str, *words: str, core: int = 0) -> Sent:
    """Run the flood on one core until it ends.

    Raises:
        BenchError: it failed.

    """
    command = ["taskset", "-c", str(core), sys.executable, "-m", "apiban.bench.flood", target]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"the flood failed: {done.stderr.strip()[-300:]}")
    report = json.loads(done.stdout)
    return Sent(report["sent"], report["cpu"])


def drain(port: int) -> int:
    """Wait until the socket is empty; give how many packets it has lost so far.

    Raises:
        BenchError: it does not become empty.

    """
    give_up = time.monotonic() + _DRAIN_TIMEOUT
    while (found := udp_socket(port)).waiting:
        if time.monotonic() > give_up:
            raise BenchError("the worker does not come to an end")
        time.sleep(0.01)
    return found.lost


def worker_cost(node: Node, sources: str, *, packets: int, burst: int = BURST) -> float:
    """Give the workers' CPU microseconds for each packet of a flood that they took.

    So many packets come from one source before the next one's.
    """
    lost = drain(node.port)
    pids = node.workers()
    cpu = cpu_seconds(pids)
    words = ("--sources", sources, "--packets", str(packets), "--rate", str(_RATE))
    sent = send_flood(node.target, *words, "--burst", str(burst))
    taken = sent.packets - (drain(node.port) - lost)
    if taken <= 0:
        raise BenchError(f"{node.setup.name}: it took none of {sent.packets:,} packets")
    time.sleep(_BOOKED)
    return (cpu_seconds(pids) - cpu) / taken * 1e6


def measure_drops(
    folder: Path, *, allocator: str, packets: int, rounds: int, say: Callable[[str], None]
) -> Mapping[str, Figure]:
    """Give the worker's CPU microseconds a packet that it dropped, for each set-up."""
    with contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for number, setup in enumerate(SETUPS.values()):
            if setup.drops:
                node = Node(setup, folder / str(number), LISTED, allocator=allocator)
                check_node(stack.enter_context(node))
                measures[setup.name] = partial(worker_cost, node, FEW, packets=packets)
        node = Node(SETUPS[OURS], folder / "crowd", (*LISTED, *CROWDING), allocator=allocator)
        check_node(stack.enter_context(node))
        measures[CROWDED] = partial(worker_cost, node, CROWD, packets=packets, burst=_CROWD_BURST)
        return alternate(measures, rounds, say=say)


def measure_kernel_drops(
    *, packets: int, rounds: int, say: Callable[[str], None]
) -> Mapping[str, Figure]:
    """Give the CPU microseconds a packet that a set of nftables drops: no worker is part of it.

    On loopback the sender's core does the receiver's work in the kernel. So this is the sender's
    time, less what it takes when the packets are dropped where they come in, before IP. They are
    sent one by one, since a burst is one packet for the rules.
    """
    port = free_port(HOST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((HOST, port))

        def cost() -> float:
            words = ("--sources", FEW, "--packets", str(packets), "--burst", "1")
            sent = send_flood(f"{HOST}:{port}", *words)
            return sent.cpu / sent.packets * 1e6

        def by_set() -> float:
            with dropped_by_set(port, LISTED):
                return cost()

        def at_once() -> float:
            with dropped_at_once(port):
                return cost()

        found = alternate({NFTABLES: by_set, "at once": at_once}, rounds, say=say)
    return {NFTABLES: found[NFTABLES].minus(found["at once"])}
