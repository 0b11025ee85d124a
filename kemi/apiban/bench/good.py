"""What the check costs those who are not listed: a request, and a whole call through a proxy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from apiban.bench.check import check_node
from apiban.bench.drops import worker_cost
from apiban.bench.lists import LISTED, UNLISTED
from apiban.bench.machine import BenchError, cpu_seconds
from apiban.bench.nodes import (
    FLOOR,
    HTABLE_ALONE,
    HTABLE_EARLY,
    NATIVE,
    OURS,
    OURS_ALONE,
    OURS_NATIVE,
    OURS_NO_FRONT,
    PYTHON,
    RECIPE,
    SETUPS,
    Node,
    Setup,
)
from apiban.bench.rounds import Figure, alternate
from apiban.trial.kamailio import CONFIGURATION
from apiban.trial.sipp import SCENARIOS, Load, Server, serve, start

__all__ = ["ALONE", "REQUESTS", "measure_calls", "measure_requests"]

# Whole requests, then the check alone.
REQUESTS: Final = (NATIVE, RECIPE, HTABLE_EARLY, OURS_NATIVE, OURS_NO_FRONT, PYTHON, OURS)
ALONE: Final = (FLOOR, HTABLE_ALONE, OURS_ALONE)
_CALLER: Final = "127.0.2.1"
_UPSTREAM: Final = "127.0.4.1"
_CALLS_PER_SECOND: Final = 250


def measure_requests(
    folder: Path, *, allocator: str, packets: int, rounds: int, say: Callable[[str], None]
) -> Mapping[str, Figure]:
    """Give the worker's CPU microseconds for an OPTIONS of an unlisted source.

    ``REQUESTS`` answer it with 200; ``ALONE`` end after the check, which tells its cost better than
    the difference of two whole requests.
    """
    with contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], float]] = {}
        for number, name in enumerate((*REQUESTS, *ALONE)):
            node = Node(SETUPS[name], folder / str(number), LISTED, allocator=allocator)
            check_node(stack.enter_context(node))
            measures[name] = partial(worker_cost, node, UNLISTED, packets=packets)
        return alternate(measures, rounds, say=say)


def measure_calls(
    folder: Path, *, allocator: str, calls: int, rounds: int, say: Callable[[str], None]
) -> Mapping[str, Figure]:
    """Give the worker's CPU microseconds for a call, INVITE to BYE, through a stateful proxy.

    Raises:
        BenchError: a call failed.

    """
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        server = Server("upstream-uas", _UPSTREAM)
        upstream = stack.enter_context(serve(server, SCENARIOS, folder))
        measures: dict[str, Callable[[], float]] = {}
        for number, name in enumerate((NATIVE, HTABLE_EARLY, OURS_NATIVE)):
            proxy = _proxy(SETUPS[name], f"sip:{_UPSTREAM}:{upstream.port}")
            node = Node(proxy, folder / str(number), LISTED, allocator=allocator)
            check_node(stack.enter_context(node))
            measures[name] = partial(_call_cost, node, folder, calls)
        return alternate(measures, rounds, say=say)


def _proxy(setup: Setup, upstream: str) -> Setup:
    """Give the same check before a proxy's routing."""
    return replace(
        setup,
        answers="405",  # to OPTIONS
        configuration=CONFIGURATION.parent / "bench" / "proxy.cfg",
        defines=(*setup.defines, f'BENCH_UPSTREAM="{upstream}"'),
    )


def _call_cost(node: Node, folder: Path, calls: int) -> float:
    pids = node.workers()
    cpu = cpu_seconds(pids)
    load = Load("good-call", node.target, _CALLER, _CALLS_PER_SECOND, calls)
    with start(load, SCENARIOS, folder) as sipp:
        result = sipp.wait()
    if result.calls_succeeded != calls:
        raise BenchError(f"{node.setup.name}: {result.calls_succeeded} of {calls} calls succeeded")
    time.sleep(0.1)  # the last BYE's transaction is answered
    return (cpu_seconds(pids) - cpu) / calls * 1e6
