"""The trap: each message is read, judged, recorded and answered here, in Kamailio's workers.

A sighting is on the disk before its answer leaves. What cannot be recorded is not answered: an
answered sighting is never lost. A fault in here leaves one request without an answer.
"""

from __future__ import annotations

import socket
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apiban.address import pack
from apiban.clock import Clock
from apiban.errors import QueueBusy, StoreError
from apiban.gate import Board
from apiban.gate.board import FAULTS
from apiban.honeypot.answers import Answers, fits
from apiban.honeypot.bucket import Bucket
from apiban.honeypot.counts import ANSWERS, NOT_KEPT, SIGHTINGS, SILENT, UNPROVEN, UNWRITTEN
from apiban.honeypot.message import Request, read_request
from apiban.honeypot.nonce import Nonces
from apiban.honeypot.pbx import Answer, Caller, Pbx
from apiban.honeypot.queue import Queue
from apiban.honeypot.records import Proof, Sighting, Unproven
from apiban.honeypot.settings import HoneypotSettings
from apiban.honeypot.tool import tool_of
from apiban.log import Log, where

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Trap"]

_SAY_EVERY: Final = 60.0
_REST: Final = 1.0
_LINES_AN_INTERVAL: Final = 10
_CONNECTED: Final = frozenset({"tcp", "tls"})
# Those whose request-URI names whom the caller wants to reach.
_DIALLING: Final = frozenset({"INVITE", "MESSAGE"})


class Trap:
    """Handles requests for one process."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        *,
        settings: HoneypotSettings,
        board: Board,
        answers: Answers,
        nonces: Nonces,
        queue: Path,
        clock: Clock,
        log: Log,
        metrics_port: int = 0,
    ) -> None:
        """Take the process's parts; at ``metrics_port`` HTTP goes on to Kamailio, 0 is nowhere."""
        self._ksr = ksr
        self._metrics_port = metrics_port
        self._settings = settings
        self._board = board
        self._answers = answers
        self._pbx = Pbx(settings.pbx, nonces)
        self._path = queue
        self._clock = clock
        self._log = log
        self._bucket = Bucket(settings.unproven.writes, clock.uptime)
        self._slot = Board.slot_at(0)
        self._pending: tuple[Request, Caller] | None = None
        self._queue: Queue | None = None  # a connection must not be carried over a fork
        self._rest_until = 0.0
        self._was_busy = False
        self._quiet_until: dict[str, float] = {}

    def sign_in(self, rank: int, pid: int) -> None:
        """Begin to count for this process: to be called from ``child_init``."""
        self._slot = self._board.take_slot(rank, pid)

    def close(self) -> None:
        """Let go of the queue's file."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.close()

    def received(self) -> None:
        """Read the message at hand before Kamailio does; raise nothing.

        Only a request that Kamailio can read and answer goes on to ``request_route``: of anything
        else it would write a line, and pass a reply on to whom its second Via names.
        """
        self._pending = None
        try:
            if self._takes():
                return
        except Exception as error:  # noqa: BLE001 - the next request may well be fine
            self.count_fault(error)
        self._ksr.set_drop()

    def request_route(self) -> None:
        """Record and answer the request that was read; raise nothing."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            self._handle(*pending)
        except Exception as error:  # noqa: BLE001 - the next request may well be fine
            self.count_fault(error)

    def count_fault(self, error: BaseException) -> None:
        """Count a fault of ours, and say it now and then."""
        self._count(FAULTS)
        self._say_rarely(
            "fault", what=type(error).__name__, at=where(error), reason=error, effect="no answer"
        )

    # The steps ---------------------------------------------------------------------------------

    def _takes(self) -> bool:
        """Read the message; tell whether it goes on. What is no whole request is recorded only."""
        message = self._message()
        request = read_request(message)
        if request is None:
            return self._is_scrape(message)
        caller = self._caller()
        if request.whole:
            self._pending = request, caller
        elif caller.transport in _CONNECTED:
            self._queued(request, caller, "connection")
        else:
            self._note(request, caller)
        return request.whole

    def _is_scrape(self, message: bytes) -> bool:
        """Tell whether it is for the metrics: what exactly it asks for is Kamailio's to judge."""
        if not self._metrics_port or not message.startswith(b"GET "):
            return False
        get = self._ksr.pv.get
        connected = str(get("$rcv(sproto)")).lower() in _CONNECTED
        return connected and get("$rcv(rcvport)") == self._metrics_port

    def _handle(self, request: Request, caller: Caller) -> None:
        if request.method == "ACK":
            return
        accepted = self._pbx.accepted(request, caller)
        proof: Proof = "connection" if caller.transport in _CONNECTED else "nonce"
        if proof == "connection" or accepted:
            if self._queued(request, caller, proof):
                self._send(self._pbx.answers(request, caller, accepted=accepted))
        else:
            self._note(request, caller)
            self._answer_unproven(request, caller)

    def _message(self) -> bytes:
        get = self._ksr.pv.get
        try:
            text = get("$rcv(buf)")
        except UnicodeDecodeError:  # then the bytes come through as hex digits
            digits = get("$(rcv(buf){s.encode.hexa})")
            return bytes.fromhex(digits) if isinstance(digits, str) else b""
        return text.encode() if isinstance(text, str) else b""

    def _caller(self) -> Caller:
        get = self._ksr.pv.get
        packed = pack(str(get("$rcv(srcip)")))
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        port, local_port = get("$rcv(srcport)"), get("$rcv(rcvport)")
        return Caller(
            source=socket.inet_ntop(family, packed),
            port=port if isinstance(port, int) else 0,
            transport=str(get("$rcv(sproto)")).lower(),
            local=(str(get("$rcv(rcvip)")), local_port if isinstance(local_port, int) else 0),
        )

    def _queued(self, request: Request, caller: Caller, proof: Proof) -> bool:
        """Queue a sighting; tell whether it is on the disk."""
        sighting = Sighting(
            source=caller.source,
            transport=caller.transport,
            method=request.method,
            tool=tool_of(request),
            user_agent=request.user_agent,
            dialled=request.dialled if request.method in _DIALLING else None,
            users=request.users,
            proof=proof,
            at=self._clock.now(),
        )
        try:
            queue = self._open_queue()
            queued = queue is not None and queue.add(sighting, max_rows=self._settings.max_rows)
            if queue is not None:
                self._was_busy = False
            if queue is not None and not queued and queue.rows() >= self._settings.max_rows:
                self._say_rarely("queue-full", rows=self._settings.max_rows, effect="no answer")
        except StoreError as error:
            self._queue_failed(error)
            queued = False
        if not queued:
            self._count(UNWRITTEN)
            return False
        self._count(SIGHTINGS)
        self._say_first(sighting)
        return True

    def _note(self, request: Request, caller: Caller) -> None:
        """Count a message that anybody may have sent, and keep its source if there is room."""
        self._count(UNPROVEN)
        settings = self._settings.unproven
        if not settings.keep or not self._bucket.take():
            self._count(NOT_KEPT)
            return
        now = self._clock.now()
        unproven = Unproven(
            source=caller.source,
            transport=caller.transport,
            method=request.method,
            tool=tool_of(request),
            user_agent=request.user_agent,
            first=now,
            last=now,
        )
        try:
            queue = self._open_queue()
            self._count(NOT_KEPT, queue.note(unproven, keep=settings.keep) if queue else 1)
        except StoreError as error:
            self._queue_failed(error)
            self._count(NOT_KEPT)

    def _answer_unproven(self, request: Request, caller: Caller) -> None:
        answers = self._pbx.answers(request, caller, accepted=False)
        size = request.reply_size + len(caller.source) + answers[0].size
        if fits(size, request.size) and self._answers.take(caller.source):
            self._send(answers)
        else:
            self._count(SILENT)

    def _send(self, answers: tuple[Answer, ...]) -> None:
        ksr = self._ksr
        # To where it came from, whatever its Via says, and over the connection it came by.
        ksr.force_rport()
        ksr.set_reply_no_connect()
        sent: set[str] = set()
        for answer in answers:
            for header in answer.headers:
                if header not in sent:  # what one reply was given, the next ones have too
                    ksr.hdr.append_to_reply(f"{header}\r\n")
                    sent.add(header)
            if answer.body:
                ksr.textops.set_reply_body(answer.body, "application/sdp")
            if ksr.sl.send_reply(answer.code, answer.reason) > 0:
                self._count(ANSWERS)

    # Around them -------------------------------------------------------------------------------

    def _open_queue(self) -> Queue | None:
        """Give the queue; None shortly after it failed, so that a flood does not wait for it."""
        if self._clock.uptime() < self._rest_until:
            return None
        if self._queue is None:
            self._queue = Queue(self._path)
        return self._queue

    def _queue_failed(self, error: StoreError) -> None:
        """Give the queue a rest; one that was busy for once needs none, and is good."""
        busy = isinstance(error, QueueBusy)
        if not busy:
            self.close()
        if not busy or self._was_busy:
            self._rest_until = self._clock.uptime() + _REST
        self._was_busy = busy
        self._say_rarely("queue-failed", reason=error, effect="proven sources get no answer")

    def _say_first(self, sighting: Sighting) -> None:
        """Say the first sighting of a source in a while; all sources have a few lines in all."""
        mark, now = zlib.crc32(pack(sighting.source)), self._clock.now()
        if self._board.claim(mark, now=now, slot=self._slot) and self._board.may_say(
            mark,
            now=now,
            slot=self._slot,
            interval=self._settings.log_interval,
            limit=_LINES_AN_INTERVAL,
        ):
            self._log(
                "sighting",
                source=sighting.source,
                transport=sighting.transport,
                method=sighting.method,
                tool=sighting.tool or "-",
                proof=sighting.proof,
                dialled=sighting.dialled or "-",
                user_agent=sighting.user_agent or "-",
            )

    def _say_rarely(self, event: str, **fields: object) -> None:
        now = self._clock.uptime()
        if now >= self._quiet_until.get(event, 0.0):
            self._quiet_until[event] = now + _SAY_EVERY
            self._log(event, **fields)

    def _count(self, what: int, number: int = 1) -> None:
        self._board.words[self._slot + what] += number
