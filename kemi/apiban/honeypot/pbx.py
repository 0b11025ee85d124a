"""What the careless PBX answers. It decides; it sends nothing, and knows no way to route."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from apiban.honeypot.message import Request
from apiban.honeypot.nonce import Nonces
from apiban.honeypot.settings import PbxSettings

__all__ = ["Answer", "Caller", "Pbx"]

_ALLOW: Final = (
    "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, MESSAGE, PUBLISH, REGISTER"
)
_CHALLENGED: Final = frozenset(
    {"REGISTER", "INVITE", "SUBSCRIBE", "MESSAGE", "PUBLISH", "REFER"},
)
_SIMPLE: Final[dict[str, tuple[int, str] | tuple[int, str, str]]] = {
    "OPTIONS": (200, "OK", _ALLOW),
    "BYE": (200, "OK"),
    "CANCEL": (200, "OK"),
    **dict.fromkeys(("INFO", "NOTIFY", "PRACK", "UPDATE"), (405, "Method Not Allowed", _ALLOW)),
}
_FRAME: Final = len("SIP/2.0 200 \r\n") + len("Content-Length: 0000\r\n") + len("\r\n")
_CONTACT = re.compile(r"<sips?:[!-;=?-~]{1,200}>")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply: its own headers without line breaks, and a body of SDP or none."""

    code: int
    reason: str
    headers: tuple[str, ...] = ()
    body: str = ""

    @property
    def size(self) -> int:
        """Give the most bytes that it adds to what is copied from the request."""
        own = sum(len(header) + 2 for header in self.headers)
        return _FRAME + len(self.reason) + own + len(self.body)


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request came from, and where it arrived: ``local`` is an address and a port."""

    source: str
    port: int
    transport: str
    local: tuple[str, int]


class Pbx:
    """Answers requests. ``accepted`` tells whether a request bears a nonce that is its caller's."""

    def __init__(self, settings: PbxSettings, nonces: Nonces) -> None:
        self._realm = settings.realm
        self._server = (f"Server: {settings.server}",) if settings.server else ()
        self._nonces = nonces

    def accepted(self, request: Request, caller: Caller) -> bool:
        """Tell whether a request proves by a nonce of ours that its source reads our answers."""
        return any(self._good(one.nonce, caller) for one in request.credentials)

    def answers(self, request: Request, caller: Caller, *, accepted: bool) -> tuple[Answer, ...]:
        """Give what is sent back, in order; to who has proved nothing it is one answer."""
        method = request.method
        if method in _CHALLENGED:
            if not accepted or (method == "REGISTER" and not self._weak(request, caller)):
                return (self._challenge(caller),)
            return self._served(request, caller)
        if method in _SIMPLE:
            code, reason, *headers = _SIMPLE[method]
            return (self._answer(code, reason, *headers),)
        return (self._answer(501, "Not Implemented"),)

    def _served(self, request: Request, caller: Caller) -> tuple[Answer, ...]:
        """Answer as if the guess had been right, and the call had come through."""
        if request.method == "INVITE":
            host, port = caller.local
            host = f"[{host}]" if ":" in host else host
            contact = f"Contact: <sip:{host}:{port};transport={caller.transport}>"
            return (
                self._answer(100, "Trying"),
                self._answer(180, "Ringing", contact),
                self._answer(200, "OK", contact, body=_silence(caller.local[0])),
            )
        if request.method == "REGISTER":
            bound = _CONTACT.search(request.contact or "")
            headers = (f"Contact: {bound[0]};expires=3600",) if bound else ()
            return (self._answer(200, "OK", *headers),)
        if request.method == "REFER":
            return (self._answer(202, "Accepted"),)
        return (self._answer(200, "OK", "Expires: 3600"),)

    def _challenge(self, caller: Caller) -> Answer:
        nonce = self._nonces.make(caller.source, caller.port, caller.transport)
        header = f'WWW-Authenticate: Digest realm="{self._realm}", nonce="{nonce}", algorithm=MD5'
        return self._answer(401, "Unauthorized", header)

    def _weak(self, request: Request, caller: Caller) -> bool:
        return any(
            self._good(one.nonce, caller) and one.weak(request.method)
            for one in request.credentials
        )

    def _good(self, nonce: str, caller: Caller) -> bool:
        return self._nonces.check(nonce, caller.source, caller.port, caller.transport)

    def _answer(self, code: int, reason: str, *headers: str, body: str = "") -> Answer:
        return Answer(code, reason, (*self._server, *headers), body)


def _silence(address: str) -> str:
    """Describe media that nobody sends or reads: our own address, at the discard port."""
    family = "IP6" if ":" in address else "IP4"
    lines = (
        *("v=0", f"o=- 1700000000 1700000000 IN {family} {address}", "s=call"),
        *(f"c=IN {family} {address}", "t=0 0", "m=audio 9 RTP/AVP 0 8 101"),
        *("a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=rtpmap:101 telephone-event/8000"),
        "a=sendrecv",
    )
    return "".join(f"{line}\r\n" for line in lines)
