# ruff: noqa: INP001 - a script that Kamailio loads, no package
"""The KEMI Python scripts that bin/bench compares; BENCH_CHECK names the one to run.

``none`` checks nothing, ``htable`` looks the source up in Kamailio's hash table, ``early`` and
``request`` compose this project's node, and call it before parsing and at the top of the request
route.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kemi"))

import apiban_kemi
import KSR


class Plain:
    """Answers every request with 200; the others are like it, after their check."""

    def child_init(self, _rank: int) -> int:
        """Begin in a forked process."""
        return 0

    def ksr_request_route(self, _msg: object) -> int:
        """Answer a request."""
        KSR.sl.sl_send_reply(200, "OK")
        return 1


class Htable(Plain):
    """Looks the source up in Kamailio's hash table."""

    def ksr_request_route(self, msg: object) -> int:
        """Drop a listed source's request; answer another one."""
        if KSR.htable.sht_get("apiban", KSR.pv.get("$si")) is not None:
            KSR.htable.sht_inc("apibanctl", "blocks")
            return 1
        return super().ksr_request_route(msg)


class Early(Plain):
    """Has this project's guard called before a message is parsed."""

    def __init__(self) -> None:
        self.apiban = apiban_kemi.mod_init()
        self.apiban_tick = self.apiban.apiban_tick

    def child_init(self, rank: int) -> int:
        """Begin in a forked process, whose guard's functions are called without a step between."""
        self.apiban.child_init(rank)
        self.apiban_received = self.apiban.apiban_received
        self.ksr_received = self.apiban.ksr_received
        return 0


class Request(Early):
    """Calls this project's guard at the top of the request route."""

    def ksr_request_route(self, msg: object) -> int:
        """Drop a listed source's request; answer another one."""
        if self.apiban.apiban_request(msg) == 2:
            return 1
        return super().ksr_request_route(msg)


class Named(Early):
    """Tells who answered."""

    def ksr_request_route(self, _msg: object) -> int:
        """Answer with the worker's process id."""
        KSR.sl.sl_send_reply(200, f"OK {os.getpid()}")
        return 1


def mod_init() -> Plain:
    """Kamailio calls this at its start."""
    scripts = {"none": Plain, "htable": Htable, "early": Early, "request": Request, "named": Named}
    return scripts[os.environ["BENCH_CHECK"]]()
