"""The script that Kamailio's app_python3 loads for the honeypot: kamailio/honeypot.cfg.

A thin shim that must not fail, as ``apiban_kemi.py`` is, whose means it uses: a script that does
not import on ``app_python.reload`` takes Kamailio down. What fails leaves the last good node at
work; without one nothing is answered.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import KSR

sys.path.insert(0, str(Path(__file__).resolve().parent))
import apiban_kemi

# What must outlive a reload of this script lives in a module that the reload leaves alone.
_KEEP = "_apiban_honeypot_kept"
_DONE = 1


def _build(previous: Any) -> Any:
    """Import the package and build a node; put the old modules back when that fails."""
    old = apiban_kemi._import_anew()
    try:
        from apiban.honeypot.node import HoneypotNode  # noqa: PLC0415 - it may fail, here it may

        return HoneypotNode(KSR, previous=previous)
    except BaseException:
        apiban_kemi._import_anew()
        sys.modules.update(old)
        raise


class Handler:
    """The object whose methods Kamailio calls; without a node every message stays unanswered."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def child_init(self, rank: int) -> int:
        """Begin in a forked process; an exception here would end Kamailio, with status 0."""
        try:
            if self._node is not None:
                self._node.child_init(rank)
        except Exception as error:
            self._fault(error)
        return 0

    def ksr_received(self, _msg: object) -> int:
        """Read a message before Kamailio does; what is no request ends here."""
        try:
            if self._node is not None:
                self._node.trap.received()
            else:
                KSR.set_drop()
        except Exception as error:
            self._fault(error)
        return _DONE

    def ksr_request_route(self, _msg: object) -> int:
        """Record and answer a request."""
        try:
            if self._node is not None:
                self._node.trap.request_route()
        except Exception as error:
            self._fault(error)
        return _DONE

    def ksr_reply_route(self, _msg: object) -> int:
        """Drop every reply: the core would pass it on to its second Via, whoever that is."""
        KSR.set_drop()
        return _DONE

    def apiban_tick(self, _msg: object, *_: object) -> int:
        """Do rtimer's work."""
        try:
            if self._node is not None:
                self._node.tick()
        except Exception as error:
            self._fault(error)
        return _DONE

    def __getattr__(self, name: str) -> object:
        """Any other callback that a configuration names does nothing, without an exception."""
        if name.startswith(("ksr_", "apiban_")):
            return _nothing
        raise AttributeError(name)

    def _fault(self, error: BaseException) -> None:
        try:
            self._node.trap.count_fault(error)
        except Exception:
            _say('apiban: event=fault reason=unknown effect="no answer"')


def _nothing(*_: object) -> int:
    return _DONE


def _say(text: str) -> None:
    """Write a line by xlog, where a dollar begins a variable: the core's own log is kept quiet."""
    KSR.xlog.xerr(text.replace("$", "$$") + "\n")


def mod_init() -> Handler:
    """Start, or take over after a reload; Kamailio calls this in every process then."""
    kept = sys.modules.setdefault(_KEEP, types.ModuleType(_KEEP))
    previous = getattr(kept, "node", None)
    try:
        apiban_kemi._find_libraries()
        if previous is not None or not hasattr(kept, "started"):
            # A node that begins after the fork would share no memory with the other processes.
            kept.__dict__["started"] = True
            kept.__dict__["node"] = _build(previous)
    except BaseException as error:
        reason = apiban_kemi._one_line(error)
        if previous is not None:
            _say(
                f'apiban: event=reload-failed reason="{reason}" '
                'effect="the code that was running goes on"'
            )
        elif type(error).__name__ == "SettingsError":
            _say(f'apiban: event=settings-refused reason="{reason}" effect="not started"')
            sys.exit(1)
        else:
            _say(f'apiban: event=no-package reason="{reason}" effect="NOTHING IS ANSWERED"')
    return Handler(getattr(kept, "node", None))
