"""A SIP server that challenges, and phones that register, call and guess, on loopback."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from tests.support.sip import Sender, Upstream

_numbers = itertools.count(1)
_COPIED = (b"via:", b"from:", b"to:", b"call-id:", b"cseq:", b"record-route:")
PASSWORD = "right"


def header(message: bytes, name: str) -> list[str]:
    """Give the values of a header, of each time that it is there."""
    found = re.findall(rb"(?mi)^" + name.encode() + rb"[ \t]*:[ \t]*([^\r\n]*)", message)
    return [value.decode() for value in found]


def status(answer: bytes) -> int:
    """Give an answer's status; 0 when none came."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"SIP/2.0 ") else 0


def nonce_of(answer: bytes) -> str:
    """Give the nonce of a challenge."""
    (value,) = header(answer, "WWW-Authenticate")
    return re.search(r'nonce="([^"]*)"', value)[1]  # type: ignore[index]


class Registrar(Upstream):
    """Challenges each REGISTER; takes the one right password of all users; answers calls.

    Its "digest" is the password itself: only whether it is right matters to what is tested. Users
    that begin with a 9 do not exist. ``make_nonce`` may be another one.
    """

    make_nonce: Callable[[], str] = staticmethod(lambda: f"nonce-{next(_numbers)}")
    stale = False

    def _answer(self, data: bytes, peer: tuple[str, int]) -> None:
        method = data.split(b" ", 1)[0]
        if method in {b"ACK", b"CANCEL"} or method.startswith(b"SIP/"):
            return
        code, more = b"200 OK", b"Contact: <sip:100@%s:%d>\r\n" % (self.address.encode(), self.port)
        given = header(data, "Authorization")
        if method == b"REGISTER" and f'response="{PASSWORD}"' not in "".join(given):
            stale = b", stale=true" if self.stale else b""
            code = b"401 Unauthorized"
            more = b'WWW-Authenticate: Digest realm="r", nonce="%s"%s\r\n' % (
                self.make_nonce().encode(),
                stale,
            )
        elif re.match(rb"\w+ sip:9", data):
            code, more = b"404 Not Found", b""
        head = [line for line in data.split(b"\r\n") if line.lower().startswith(_COPIED)]
        head = [
            line + b";tag=up" if line.lower().startswith(b"to:") and b"tag=" not in line else line
            for line in head
        ]
        self.socket.sendto(
            b"\r\n".join([b"SIP/2.0 " + code, *head, more + b"Content-Length: 0", b"", b""]), peer
        )


class Phone(Sender):
    """One socket that registers, calls and asks; each request has a Call-ID of its own."""

    def asks(
        self,
        method: str,
        user: str = "100",
        *,
        nonce: str = "",
        response: str = "wrong",
        agent: str = "telephone",
        sender: str | None = None,
    ) -> bytes:
        """Build a request; with a nonce it has credentials. ``sender`` is whose they are."""
        data = self.request(method).replace(b"sip:100@", f"sip:{user}@".encode())
        data = data.replace(b"User-Agent: telephone", f"User-Agent: {agent}".encode())
        if nonce:
            line = (
                f'Authorization: Digest username="{sender or user}", realm="r", nonce="{nonce}",'
                f' uri="sip:x", response="{response}"\r\n'
            )
            data = data.replace(b"Max-Forwards", line.encode() + b"Max-Forwards")
        return data

    def guess(self, user: str = "100", response: str = "wrong", **more: str) -> int:
        """Register as a user, with a nonce of just now; give the last status, 0 for silence."""
        answer = self.ask(self.asks("REGISTER", user), timeout=1.0)
        if not answer:
            return 0
        return status(
            self.ask(
                self.asks("REGISTER", user, nonce=nonce_of(answer), response=response, **more),
                timeout=1.0,
            )
        )

    def register(self, user: str = "100") -> bool:
        """Register with the right password."""
        return self.guess(user, PASSWORD) == 200

    def call(self, user: str = "100") -> Call:
        """Begin a call, and confirm its answer."""
        invite = self.asks("INVITE", user)
        answer = self._final(self.ask(invite))
        assert status(answer) == 200, answer
        call = Call(self, invite, answer)
        self.send(call.request("ACK", 1))
        return call

    def _final(self, answer: bytes) -> bytes:
        while 0 < status(answer) < 200:
            answer = self.receive(3.0)
        return answer


class Call:
    """A call that was answered: what its parties send within it."""

    def __init__(self, phone: Phone, invite: bytes, answer: bytes) -> None:
        self.phone = phone
        self.call_id = header(invite, "Call-ID")[0]
        self._from = header(invite, "From")[0]
        self._to = header(answer, "To")[0]
        self._target = header(answer, "Contact")[0].strip("<>")
        self._routes = header(answer, "Record-Route")
        self._cseq = 1

    def request(self, method: str, cseq: int | None = None) -> bytes:
        """Build the caller's next request within the dialog."""
        self._cseq = self._cseq + 1 if cseq is None else cseq
        return self._built(method, self._target, self._from, self._to, self.phone.port)

    def _built(self, method: str, target: str, from_: str, to: str, port: int) -> bytes:
        number = next(_numbers)
        routes = "".join(f"Route: {route}\r\n" for route in reversed(self._routes))
        host, transport = self.phone.source, self.phone.transport.upper()
        return (
            f"{method} {target} SIP/2.0\r\n"
            f"Via: SIP/2.0/{transport} {host}:{port};branch=z9hG4bK-c-{number}\r\n"
            f"From: {from_}\r\nTo: {to}\r\nCall-ID: {self.call_id}\r\n"
            f"CSeq: {self._cseq} {method}\r\n{routes}"
            f"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ).encode()

    def upstreams_bye(self, upstream: Upstream, edge: tuple[str, int]) -> None:
        """Let the callee hang up, by way of the edge."""
        invite = next(
            data
            for data in reversed(upstream.received)
            if data.startswith(b"INVITE ") and self.call_id.encode() in data
        )
        contact = header(invite, "Contact")[0].strip("<>")
        data = self._built("BYE", contact, self._to, self._from, upstream.port).replace(
            f"Via: SIP/2.0/{self.phone.transport.upper()} {self.phone.source}".encode(),
            f"Via: SIP/2.0/UDP {upstream.address}".encode(),
        )
        upstream.socket.sendto(data, edge)

    def answers(self, request: bytes) -> bytes:
        """Build the phone's 200 to a request that it received."""
        head = [line for line in request.split(b"\r\n") if line.lower().startswith(_COPIED)]
        return b"\r\n".join([b"SIP/2.0 200 OK", *head, b"Content-Length: 0", b"", b""])
