"""What became of the requests from outside: who registered, whose calls were answered, who failed.

The edge lets each request from outside go past ``request`` before it relays it, and each reply to
one past ``reply``. Where nothing that learns from outcomes is turned on, that is all: the reply
then does not come here at all. A fault in here is counted, and changes nothing for the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from apiban.clock import Clock
from apiban.gate import Gate
from apiban.honeypot.digest import Credentials, read_credentials
from apiban.kemi.calls import Calls
from apiban.kemi.detector import Attempt, Detector, Proof
from apiban.kemi.headers import challenge
from apiban.kemi.memory import Memory
from apiban.settings.model import Mode, Settings

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Outcomes"]

_ATTEMPT: Final = "$avp(apiban_attempt)"
_GOOD_EVERY: Final = 3600.0
_GOOD: Final = {"REGISTER": "registered", "INVITE": "called"}
_TRANSPORTS: Final = {"udp": "udp", "tcp": "tcp", "ws": "tcp", "tls": "tls", "wss": "tls"}
_CREDENTIALS: Final = ("$hdr(Authorization)", "$hdr(Proxy-Authorization)")
# A server may offer several algorithms, each with a header of its own.
_CHALLENGES: Final = tuple(
    f"$(hdr({name}-Authenticate)[{number}])" for name in ("WWW", "Proxy") for number in (0, 1)
)
_LONGEST_USER: Final = 64
_LONGEST_AGENT: Final = 200


class Outcomes:
    """Learns for one process. ``fault`` is told of what goes wrong in here."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        *,
        gate: Gate,
        memory: Memory,
        calls: Calls,
        clock: Clock,
        settings: Settings,
        tell: Callable[[str, Mapping[str, Any]], bool],
        fault: Callable[[BaseException], None],
    ) -> None:
        self._ksr = ksr
        self._gate = gate
        self._marks = memory.marks
        self._calls = calls
        self._clock = clock
        self._tell = tell
        self._fault = fault
        self._detector = Detector(
            memory, settings=settings.detect, exempt=settings.exempt, tell=tell
        )

    def use(self, settings: Settings) -> None:
        """Learn by these settings from now on."""
        self._calls.grace = settings.calls.grace
        self._detector.use(settings.detect, settings.exempt)

    def request(self, method: str) -> bool:
        """Look at a request from outside; tell whether its reply is to come to ``reply``."""
        try:
            detects = self._detector.settings.enabled
            shadow = self._gate.mode is Mode.SHADOW and method in _GOOD
            if not (detects or shadow or (self._calls.grace and method == "INVITE")):
                return False
            attempt = self._attempt(method, detects=detects)
            self._ksr.pv.sets(_ATTEMPT, attempt.to_text())
            if detects:
                self._detector.asked(attempt)
        except Exception as error:  # noqa: BLE001 - the call goes on, learned from or not
            self._fault(error)
            return False
        return True

    def reply(self) -> None:
        """Look at a reply to a request from outside."""
        try:
            self._reply()
        except Exception as error:  # noqa: BLE001 - the call goes on, learned from or not
            self._fault(error)

    def answered_outside(self) -> None:
        """Look at a reply from outside to an INVITE."""
        try:
            if self._calls.grace and self._status() // 100 == 2:
                self._remember(self._text("$si"), self._text("$ci"))
        except Exception as error:  # noqa: BLE001 - the call goes on, learned from or not
            self._fault(error)

    # For native configurations ------------------------------------------------------------------

    def learn(self, what: str) -> None:
        """Learn from the message at hand, as kamailio/apiban-detect.cfg says what it is.

        ``request``: one from outside, before it is relayed or answered. ``reply``: one to such a
        request. ``failed``: a request whose credentials Kamailio itself refused; ``failed-bound``:
        and whose nonce it had made for just this address. ``registered``: a REGISTER that it took.
        """
        try:
            if what == "request":
                self.request(self._text("$rm"))
            elif what == "reply":
                self.reply()
            else:
                self._judged_here(what)
        except Exception as error:  # noqa: BLE001 - the call goes on, learned from or not
            self._fault(error)

    def answered(self, caller: str) -> None:
        """Note the call whose answer the dialog module tells of, for both of its parties."""
        try:
            if self._calls.grace:
                call = self._text("$dlg(callid)")
                for source in (caller, self._text("$si")):
                    self._remember(source, call)
        except Exception as error:  # noqa: BLE001 - the call goes on, learned from or not
            self._fault(error)

    def _judged_here(self, what: str) -> None:
        detects = self._detector.settings.enabled
        if not detects and self._gate.mode is not Mode.SHADOW:
            return
        is_bound = what == "failed-bound"
        attempt = self._attempt(self._text("$rm"), detects=True, is_bound=is_bound)
        if what == "registered":
            self._succeeded(attempt)
        elif detects:
            self._detector.refused(attempt, 401, stale=False)

    # The steps ---------------------------------------------------------------------------------

    def _reply(self) -> None:
        text = self._ksr.pv.get(_ATTEMPT)
        status = self._status()
        if not isinstance(text, str) or status < 200:
            return
        attempt = Attempt.from_text(text)
        if status < 300:
            if attempt.method == "INVITE" and self._calls.grace:
                self._remember(attempt.source, self._text("$ci"))
            if attempt.method in _GOOD:
                self._succeeded(attempt)
        elif self._detector.settings.enabled:
            self._refused(attempt, status)

    def _remember(self, source: str, call: str) -> None:
        """Note an answered call of a party; one whose messages are dropped by now gains none.

        Else each answered re-INVITE of a call that is spared would begin its grace anew.
        """
        gate = self._gate
        if gate.mode is Mode.ENFORCE and gate.is_banned(source):
            gate.forget(source)  # not from here: a cached source has its calls spared no more
            return
        self._calls.remember(source, call)

    def _succeeded(self, attempt: Attempt) -> None:
        if self._detector.settings.enabled:
            self._detector.succeeded(attempt)
        if self._gate.mode is not Mode.SHADOW or self._gate.origin(attempt.source) is None:
            return
        what = _GOOD[attempt.method]
        said = f"said {attempt.source} {what}"
        if self._marks.get(said, within=_GOOD_EVERY) is None and self._tell(
            "good", {"source": attempt.source, "what": what, "at": self._clock.now()}
        ):
            self._marks.put(said)

    def _refused(self, attempt: Attempt, status: int) -> None:
        stale = False
        if status in {401, 407}:
            for name in _CHALLENGES:
                nonce, says_stale = challenge(self._text(name))
                stale = stale or says_stale
                # Anything else may be answered by a phone, which chooses its nonces itself.
                if nonce and attempt.method == "REGISTER":
                    self._detector.challenged(attempt.source, attempt.port, nonce)
        self._detector.refused(attempt, status, stale=stale)

    # Reading the message -----------------------------------------------------------------------

    def _attempt(self, method: str, *, detects: bool, is_bound: bool = False) -> Attempt:
        source, port = self._text("$si"), self._ksr.pv.get("$sp")
        port = port if isinstance(port, int) else 0
        transport = _TRANSPORTS.get(self._text("$proto"), "udp")
        credentials = self._credentials() if detects else []
        proof: Proof = "" if transport == "udp" else "connection"
        if not proof and credentials:
            proves = self._detector.proves
            if is_bound or any(proves(source, port, one.nonce) for one in credentials):
                proof = "nonce"
        user = ""
        if credentials:
            user = credentials[0].user
        elif detects:
            user = self._text("$tU" if method == "REGISTER" else "$rU")
        return Attempt(
            method=method,
            transport=transport,
            source=source,
            port=port,
            proof=proof,
            with_credentials=bool(credentials),
            user=user[:_LONGEST_USER],
            agent=self._text("$ua")[:_LONGEST_AGENT] if detects else "",
        )

    def _credentials(self) -> list[Credentials]:
        found = (read_credentials(self._text(name)) for name in _CREDENTIALS)
        return [one for one in found if one is not None]

    def _status(self) -> int:
        status = self._ksr.pv.get("$rs")
        return status if isinstance(status, int) else 0

    def _text(self, variable: str) -> str:
        """Give a variable's text; empty when there is none that Python can read."""
        try:
            value = self._ksr.pv.get(variable)
        except UnicodeDecodeError:
            return ""
        return value if isinstance(value, str) else ""
