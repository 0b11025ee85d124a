"""The published recipe with its own sync, and ours, in a real Kamailio; both say who answers."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from apiban.bench.api import API_KEY
from apiban.bench.machine import BenchError
from apiban.bench.nodes import OURS, SETUPS, Node, Setup
from apiban.trial.kamailio import CONFIGURATION

__all__ = ["RECIPE_INTERVAL", "check_filled", "entries", "ours", "recipe", "shared_kib"]

RECIPE_INTERVAL: Final = 300.0  # as published
_ENTRIES: Final = re.compile(r"name: apiban\s+slots: \d+\s+all: (\d+)")
_USED: Final = re.compile(r"max_used: (\d+)")


def recipe(base: str, *, interval: float = 1.0, size: int = 11, fill: int = 0) -> Setup:
    """Give the recipe that asks the API at ``base`` every so many seconds.

    ``size`` is the table's, a power of two; ``fill`` addresses come in with the first tick.
    """
    microseconds = round(interval * 1_000_000)
    return Setup(
        f"htable recipe, size={size}",
        (
            f'RECIPE_API="{base}{API_KEY}/"',
            f'RECIPE_TIMER="name=apiban;interval={microseconds}u;mode=1;"',
            f'RECIPE_TABLE="apiban=>size={size};"',
            f"RECIPE_FILL={fill}",
        ),
        configuration=CONFIGURATION.parent / "bench" / "recipe-sync.cfg",
    )


def ours() -> Setup:
    """Give ours, with a list that it finds in its folder or pulls by itself."""
    return dataclasses.replace(SETUPS[OURS], environ={"BENCH_CHECK": "named"}, list_in="")


def entries(node: Node) -> int:
    """Give how many addresses are in the table."""
    return _number(_ENTRIES, node.kamailio.rpc("htable.stats"))


def check_filled(node: Node, listed: str) -> None:
    """Check that an address is in the table.

    Raises:
        KamailioError: it is not.

    """
    node.kamailio.rpc("htable.get", "apiban", f"s:{listed}")


def shared_kib(node: Node) -> float:
    """Give the most that Kamailio's shared memory (``-m``) ever held."""
    return _number(_USED, node.kamailio.rpc("core.shmmem")) / 1024


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    if found is None:
        raise BenchError(f"Kamailio does not say what was asked for: {text[:200]!r}")
    return int(found[1])
