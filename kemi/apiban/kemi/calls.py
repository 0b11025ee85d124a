"""Grace for calls: a peer that is listed in the middle of its call may end it as it began.

A call is known by the source that takes part in it and its Call-ID, from when its answer was seen
here. When the source is listed later, messages of just these calls still pass, for ``calls.grace``
seconds from its first message on. Whatever else it sends is dropped: other Call-IDs, requests that
are in no dialog, and a To-tag helps nobody whose call was not seen answered. A listed source can
begin no call, and ``Outcomes`` adds none to what it has; a call that is known already, as when a
re-INVITE of it is answered, is not noted again, so its party's grace never begins anew by it.

Sources that are not listed are never looked up here, nor are listed ones that the gate has cached:
a flood costs no more with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from apiban.kemi.headers import call_id, is_within_dialog
from apiban.kemi.memory import Memory

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Calls"]

_EARLY: Final = "$rcv(srcip)"
_NO_GRACE_YET: Final = 0


class Calls:
    """Remembers answered calls, and spares them. ``grace`` is in seconds, and may change."""

    def __init__(
        self, ksr: Ksr, memory: Memory, *, grace: float, uptime: Callable[[], float]
    ) -> None:
        self._get = ksr.pv.get
        self._calls = memory.calls
        self._callers = memory.callers
        self._uptime = uptime
        self.grace = grace

    def remember(self, source: str, call: str) -> None:
        """Note that a call of this source, by its Call-ID, was answered, unless that is known."""
        known = f"{source} {call}"
        if self.grace and source and call and self._calls.get(known) is None:
            self._calls.put(known)
            self._callers.put(source, _NO_GRACE_YET)

    def knows(self, source: str) -> bool:
        """Tell whether a listed source has calls that may still go on; its grace begins here."""
        if not self.grace:
            return False
        found = self._callers.entry(source)
        if found is None:
            return False
        answered, began = found
        now = int(self._uptime())
        if began == _NO_GRACE_YET:
            self._callers.put(source, max(now, 1), at=answered)
            return True
        return now - began < self.grace

    def spares(self, source: str, variable: str) -> bool:
        """Tell whether the message at hand belongs to one of its calls.

        ``variable`` is how the source was named: it tells whether Kamailio has parsed the message.
        """
        if variable != _EARLY:
            call, inside = str(self._get("$ci") or ""), bool(self._get("$tt"))
        else:
            try:
                message = self._get("$rcv(buf)")
            except UnicodeDecodeError:
                return False
            if not isinstance(message, str):
                return False
            call, inside = call_id(message), is_within_dialog(message)
        return inside and bool(call) and self._calls.get(f"{source} {call}") is not None
