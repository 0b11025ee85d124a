"""The edge's routing: from outside to the upstreams, from the upstreams to anywhere.

What a request from outside asks to be sent anywhere but to an upstream is refused, so that the
edge relays for nobody else. A fault in here sends the request to the first upstream: calls first.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from apiban.address import pack
from apiban.errors import AddressError
from apiban.kemi.guard import Guard
from apiban.kemi.outcome import Outcomes
from apiban.log import Log
from apiban.settings.model import EdgeSettings

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Edge"]

_DONE: Final = 1
_TRIED: Final = "$avp(apiban_tried)"
# Every check of the sanity module that needs no look-up, and all of its URI checks.
_SANITY: Final = (1511, 7)


class Edge:
    """Routes requests for one process. Each ``ksr_...`` name is a KEMI callback's work."""

    def __init__(
        self, ksr: Ksr, guard: Guard, edge: EdgeSettings, log: Log, outcomes: Outcomes
    ) -> None:
        self._ksr = ksr
        self._guard = guard
        self._log = log
        self._outcomes = outcomes
        self.use(edge)

    def use(self, edge: EdgeSettings) -> None:
        """Route by these settings from now on."""
        self._upstreams = edge.upstreams
        self._inside = frozenset(pack(str(upstream.address)) for upstream in edge.upstreams)

    def request_route(self) -> int:
        """Route one request."""
        try:
            self._guard.keep_up()
            self._route()
        except Exception as error:  # noqa: BLE001 - a fault of ours never takes calls down
            self._guard.count_fault(error)
            if self._upstreams:
                self._ksr.pv.sets("$du", self._upstreams[0].uri)
                self._ksr.tm.t_relay()
        return _DONE

    def failure_route(self) -> int:
        """Try the next upstream when one did not answer, or said that it cannot."""
        ksr = self._ksr
        if ksr.tm.t_is_canceled() > 0 or ksr.tm.t_check_status("408|503") < 0:
            return _DONE
        tried = ksr.pv.get(_TRIED)
        tried = tried if isinstance(tried, int) else 1
        if tried < len(self._upstreams):
            self._to_upstream(tried)
            self._relay()
        return _DONE

    def reply_route(self) -> int:
        """Note in a reply from outside the address that it really came from."""
        self._ksr.nathelper.set_contact_alias()
        self._guard.keep_up()
        self._outcomes.answered_outside()
        return _DONE

    def upstream_reply_route(self) -> int:
        """Learn from the reply to a request from outside."""
        self._guard.keep_up()
        self._outcomes.reply()
        return _DONE

    # The steps, in routing order ---------------------------------------------------------------

    def _route(self) -> None:
        ksr = self._ksr
        if not self._is_sane():
            return
        method = ksr.pv.get("$rm")
        if method == "CANCEL":
            if ksr.tm.t_check_trans() > 0:
                self._relay()
            return
        if method != "ACK" and self._is_retransmission():
            return
        inside = self._packed(ksr.pv.get("$si")) in self._inside
        ksr.force_rport()
        if not inside and method != "ACK" and self._outcomes.request(str(method)):
            ksr.tm.t_on_reply("ksr_onreply_upstream")
        if ksr.siputils.has_totag() > 0:
            self._within_dialog(method, inside=inside)
        elif method == "ACK":
            if ksr.tm.t_check_trans() > 0:
                self._relay()
        elif method == "KDMQ":
            ksr.sl.send_reply(403, "Forbidden")
        else:
            self._begin(method, inside=inside)

    def _is_sane(self) -> bool:
        ksr = self._ksr
        if ksr.maxfwd.process_maxfwd(10) < 0:
            ksr.sl.send_reply(483, "Too Many Hops")
            return False
        return ksr.sanity.sanity_check(*_SANITY) > 0

    def _is_retransmission(self) -> bool:
        ksr = self._ksr
        if ksr.tmx.t_precheck_trans() > 0:
            ksr.tm.t_check_trans()
            return True
        return ksr.tm.t_check_trans() == 0

    def _within_dialog(self, method: object, *, inside: bool) -> None:
        ksr = self._ksr
        if ksr.rr.loose_route() < 0:
            if method == "ACK":
                if ksr.tm.t_check_trans() > 0:
                    self._relay()
            else:
                ksr.sl.send_reply(404, "Not here")
            return
        if not ksr.pv.get("$du"):
            ksr.nathelper.handle_ruri_alias()
        if not inside:
            host = ksr.pv.get("$dd") or ksr.pv.get("$rd")
            if self._packed(host) not in self._inside:
                self._refuse(method, host)
                return
            ksr.nathelper.set_contact_alias()
        elif method == "INVITE":
            ksr.tm.t_on_reply("ksr_onreply_outside")
        self._relay()

    def _begin(self, method: object, *, inside: bool) -> None:
        ksr = self._ksr
        ksr.rr.remove_record_route()
        if method in {"INVITE", "SUBSCRIBE", "REFER"}:
            ksr.rr.record_route()
        # What an upstream sends to ourselves can only be meant for an upstream (and would loop).
        if inside and not ksr.is_myself_ruri():
            self._begin_from_inside(method)
            return
        if not self._upstreams:
            ksr.sl.send_reply(503, "No upstream is configured")
            return
        if method == "REGISTER":
            # The upstream reaches the phone through us, at the address that it really has.
            ksr.path.add_path_received()
        else:
            ksr.nathelper.set_contact_alias()
        self._to_upstream(0)
        self._relay()

    def _begin_from_inside(self, method: object) -> None:
        ksr = self._ksr
        ksr.rr.loose_route()  # a Route that the phone's Path made leads to it
        if not ksr.pv.get("$du"):
            ksr.nathelper.handle_ruri_alias()
        if method == "INVITE":
            ksr.tm.t_on_reply("ksr_onreply_outside")
        self._relay()

    def _to_upstream(self, tried: int) -> None:
        """Choose by the Call-ID, so that a call's messages take one way, and its failover."""
        ksr = self._ksr
        call = str(ksr.pv.get("$ci") or "").encode("utf-8", "replace")
        upstream = self._upstreams[(zlib.crc32(call) + tried) % len(self._upstreams)]
        ksr.pv.sets("$du", upstream.uri)
        ksr.pv.seti(_TRIED, tried + 1)
        if tried + 1 < len(self._upstreams):
            ksr.tm.t_on_failure("ksr_failure_upstream")

    def _relay(self) -> None:
        if self._ksr.tm.t_relay() < 0:
            self._ksr.sl.sl_reply_error()

    def _refuse(self, method: object, host: object) -> None:
        ksr = self._ksr
        source = str(ksr.pv.get("$si"))
        if self._guard.may_say(source):
            self._log("edge-refused", source=source, method=method, wanted=host)
        if method != "ACK":
            ksr.sl.send_reply(403, "Relaying refused")

    @staticmethod
    def _packed(host: object) -> bytes:
        try:
            return pack(str(host))
        except AddressError:
            return b""
