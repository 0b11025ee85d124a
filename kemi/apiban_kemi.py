"""The script that Kamailio's app_python3 loads, for KEMI and for native configurations alike.

It is a thin shim that must not fail: a script that does not import on ``app_python.reload`` takes
Kamailio down, and an exception in a callback costs a request or a log full of tracebacks. So all
that can fail stands in a try, and what fails leaves the last good node at work.

KEMI callbacks: ``ksr_received`` (pre-parse), ``ksr_request_route`` and the ``ksr_...`` routes of
the edge, ``apiban_tick`` (rtimer). Native routes call, by ``python_exec``: ``apiban_received``
(with the source's address, where the front is before it) and ``apiban_request`` (2 in ``$rc``:
drop; everything else: go on), ``apiban_learn`` and ``apiban_answered`` (what became of requests and
calls), and ``apiban_tick``.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import KSR

_HERE = Path(__file__).resolve().parent
# What must outlive a reload of this script lives in a module that the reload leaves alone.
_KEEP = "_apiban_kept"
_PASS = 1


def _find_libraries() -> None:
    """Put the package, and its virtual environment if there is one, on the module path."""
    environment = Path(os.environ.get("APIBAN_VENV") or _HERE.parent / ".venv")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (environment / "lib" / name / "site-packages", _HERE):
        if folder.is_dir():
            while str(folder) in sys.path:
                sys.path.remove(str(folder))
            sys.path.insert(0, str(folder))


def _import_anew() -> dict[str, types.ModuleType]:
    """Take the package's modules out of the interpreter, so that a reload reads new code."""
    ours = [name for name in sys.modules if name == "apiban" or name.startswith("apiban.")]
    return {name: sys.modules.pop(name) for name in ours}


def _build(previous: Any) -> Any:
    """Import the package and build a node; put the old modules back when that fails."""
    old = _import_anew()
    try:
        from apiban.kemi.node import Node  # noqa: PLC0415 - it may fail, here it may

        return Node(KSR, previous=previous)
    except BaseException:
        _import_anew()
        sys.modules.update(old)
        raise


def _pass(*_: object) -> int:
    """Let a message through."""
    return _PASS


def _one_line(error: BaseException) -> str:
    return _escaped(f"{type(error).__name__}: {error}")[:800]


def _escaped(text: object) -> str:
    """Make it one line of ASCII that can stand between double quotes."""
    words = " ".join(str(text).split()).replace('"', "'")
    return words.encode("ascii", "backslashreplace").decode("ascii")


class Handler:
    """The object whose methods Kamailio calls; without a node every message passes."""

    ksr_received: Callable[..., int]
    apiban_received: Callable[..., int]
    apiban_request: Callable[..., int]

    def __init__(self, node: Any) -> None:
        self._node = node
        self._bind()

    def _bind(self) -> None:
        """Let Kamailio call the hot path without a step in between: it catches its own faults."""
        node = self._node
        self.ksr_received = node.guard.pre_parse if node else _pass
        self.apiban_received = node.guard.received if node else _pass
        self.apiban_request = node.guard.request_verdict if node else _pass

    def child_init(self, rank: int) -> int:
        """Begin in a forked process; an exception here would end Kamailio, with status 0."""
        try:
            if self._node is not None:
                self._node.child_init(rank)
                self._bind()
        except Exception as error:
            self._fault(error)
        return 0

    def apiban_tick(self, _msg: object, *_: object) -> int:
        """Do rtimer's work."""
        try:
            if self._node is not None:
                self._node.tick()
        except Exception as error:
            self._fault(error)
        return _PASS

    def ksr_request_route(self, _msg: object) -> int:
        """Route a request of the edge."""
        try:
            if self._node is not None:
                self._node.edge.request_route()
                return _PASS
            KSR.sl.send_reply(503, "Service Unavailable")
        except Exception as error:
            self._fault(error)
        return _PASS

    def ksr_failure_upstream(self, _msg: object, *_: object) -> int:
        """Go on with the next upstream."""
        try:
            if self._node is not None:
                self._node.edge.failure_route()
        except Exception as error:
            self._fault(error)
        return _PASS

    def ksr_onreply_outside(self, _msg: object, *_: object) -> int:
        """Take a reply from outside."""
        try:
            if self._node is not None:
                self._node.edge.reply_route()
        except Exception as error:
            self._fault(error)
        return _PASS

    def ksr_onreply_upstream(self, _msg: object, *_: object) -> int:
        """Learn from a reply of an upstream to a request from outside."""
        try:
            if self._node is not None:
                self._node.edge.upstream_reply_route()
        except Exception as error:
            self._fault(error)
        return _PASS

    def apiban_learn(self, _msg: object, what: str = "", *_: object) -> int:
        """Learn from a message of a native configuration: kamailio/apiban-detect.cfg."""
        try:
            if self._node is not None:
                self._node.guard.keep_up()
                self._node.outcomes.learn(what)
        except Exception as error:
            self._fault(error)
        return _PASS

    def apiban_answered(self, _msg: object, caller: str = "", *_: object) -> int:
        """Learn of an answered call of a native configuration that has the dialog module."""
        try:
            if self._node is not None:
                self._node.guard.keep_up()
                self._node.outcomes.answered(caller)
        except Exception as error:
            self._fault(error)
        return _PASS

    def ksr_reply_route(self, _msg: object) -> int:
        """Kamailio calls it by default, and a missing method would break the next call."""
        return _PASS

    def ksr_onsend_route(self, _msg: object) -> int:
        """Kamailio calls it by default, and a missing method would break the next call."""
        return _PASS

    def __getattr__(self, name: str) -> object:
        """Any other callback that a configuration names passes instead of leaving an exception."""
        if name.startswith(("ksr_", "apiban_")):
            return _pass
        raise AttributeError(name)

    def _fault(self, error: BaseException) -> None:
        try:
            self._node.guard.count_fault(error)
        except Exception:
            KSR.err('apiban: event=fault reason=unknown effect="let through"\n')


def mod_init() -> Handler:
    """Start, or take over after a reload; Kamailio calls this in every process then."""
    kept = sys.modules.setdefault(_KEEP, types.ModuleType(_KEEP))
    previous = getattr(kept, "node", None)
    try:
        _find_libraries()
        if previous is not None or not hasattr(kept, "started"):
            # A node that begins after the fork would share no memory with the other processes:
            # what could not be loaded at the start needs a restart.
            kept.__dict__["started"] = True
            kept.__dict__["node"] = _build(previous)
    except BaseException as error:
        if previous is not None:
            KSR.err(
                f'apiban: event=reload-failed reason="{_one_line(error)}" '
                'effect="the code that was running goes on"\n'
            )
        elif type(error).__name__ == "SettingsError":
            KSR.err(
                f'apiban: event=settings-refused reason="{_escaped(error)}" effect="not started"\n'
            )
            sys.exit(1)
        else:
            KSR.err(
                f'apiban: event=no-package reason="{_one_line(error)}" '
                'effect="NOTHING IS PROTECTED, everything passes"\n'
            )
    return Handler(getattr(kept, "node", None))
