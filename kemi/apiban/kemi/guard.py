"""The guard: every message's source goes past it, before Kamailio parses anything.

``pre_parse`` and ``verdict`` are the hot path, a few hundred ns of Python a packet: closures
over local names, because each attribute look-up there would cost as much as the whole decision.
They do no I/O, take no lock and print nothing for a source that was met before. A new snapshot or
new settings show as a changed word in shared memory.

A fault in here lets the message through, is counted, and is said at most once a minute.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from apiban.address import pack
from apiban.clock import Clock
from apiban.errors import ApibanError
from apiban.gate import DROP, PASS, Board, Front, Gate
from apiban.gate.board import CHANGES, DROPPED, FAULTS, GENERATION, PASSED, SETTINGS, WOULD_DROP
from apiban.log import Log, where
from apiban.settings.model import LogSettings, Mode
from apiban.snapshot import Snapshot

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["DROP", "PASS", "Guard"]

_FAULT_EVERY: Final = 60.0
# How the source is named before a message is parsed, and after.
_EARLY: Final = "$rcv(srcip)"
_REQUEST: Final = "$si"
_TRANSPORTS: Final = {1: "udp", 2: "tcp", 3: "tls", 4: "sctp", 5: "ws", 6: "wss"}


class Guard:
    """Judges sources for one process.

    ``verdict()`` gives DROP or PASS for the message at hand in the pre-parse hook;
    ``received(msg, source)`` is the same for a native route that has the front before it, and puts
    its verdicts there; ``pre_parse(msg)`` is the same as a KEMI callback, and drops by itself;
    ``request_verdict()`` is for the top of ``request_route``, where Kamailio names the source
    otherwise.
    """

    received: Callable[..., int]
    verdict: Callable[..., int]
    request_verdict: Callable[..., int]
    pre_parse: Callable[..., int]

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        *,
        board: Board,
        gate: Gate,
        front: Front,
        clock: Clock,
        log: Log,
        log_settings: LogSettings,
        load: Callable[[int], Snapshot],
        settings_changed: Callable[[], None],
    ) -> None:
        """Take the process's parts.

        ``load`` maps the snapshot of a generation or raises SnapshotError; ``settings_changed``
        is called when the node's settings are others.
        """
        self._ksr = ksr
        self._board = board
        self._gate = gate
        self._front = front
        self._clock = clock
        self._log = log
        self.log_settings = log_settings
        self._load = load
        self._settings_changed = settings_changed
        self._seen = -1  # the first message looks whether anything came since the list was chosen
        self._settings_seen = board.words[SETTINGS]
        self._quiet_until = 0.0
        self._slot = Board.slot_at(0)
        self._build()

    def sign_in(self, rank: int) -> None:
        """Begin to count for this process: to be called from ``child_init``."""
        self._slot = self._board.take_slot(rank, os.getpid())
        self._board.use(self._slot, self._gate.generation)
        self._build()

    def count_fault(self, what: BaseException) -> None:
        """Count a fault of ours, and say it now and then."""
        self._board.words[self._slot + FAULTS] += 1
        now = self._clock.uptime()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _FAULT_EVERY
        self._log(
            "fault", what=type(what).__name__, at=where(what), reason=what, effect="let through"
        )

    # The hot path ------------------------------------------------------------------------------

    def _build(self) -> None:
        """Bind the hot path to the slot and the mode as they are now."""
        self.verdict = self._closure(_EARLY)
        self.received = self._fronted(self.verdict)
        self.request_verdict = self._closure(_REQUEST)
        self.pre_parse = self._callback(self.verdict)

    def _closure(self, variable: str) -> Callable[..., int]:
        words = self._board.words
        listed = self._gate.listed
        get = self._ksr.pv.get
        judge = self._judge
        refresh = self._refresh
        count_fault = self._count_fault_safely
        seen = self._seen
        hit, on_hit = self._on_hit()

        def verdict(*_: object) -> int:
            nonlocal seen, hit, on_hit
            try:
                if words[CHANGES] != seen:
                    seen = words[CHANGES]
                    hit, on_hit = refresh()
                source = get(variable)
                if source in listed:
                    words[hit] += 1
                    return on_hit
                return judge(source, variable)
            except Exception as error:  # noqa: BLE001 - a fault of ours lets calls through
                count_fault(error)
                return PASS

        return verdict

    def _fronted(self, verdict: Callable[..., int]) -> Callable[..., int]:
        """Build ``received``: what the front does not know comes here, so it is less hot."""
        words, gate, front = self._board.words, self._gate, self._front
        judge, refresh, count_fault = self._judge, self._refresh, self._count_fault_safely
        seen = self._seen
        hit, on_hit = self._on_hit()

        def received(_msg: object = None, source: str = "", *_: object) -> int:
            nonlocal seen, hit, on_hit
            if not source:  # a route without the front gives no argument
                return verdict()
            result = PASS
            try:
                if words[CHANGES] != seen:
                    seen = words[CHANGES]
                    hit, on_hit = refresh()
                if source in gate.listed:
                    words[hit] += 1
                    result = on_hit
                    known = True
                else:
                    result = judge(source, _EARLY)
                    known = result == PASS and front.has_met(source)
                # The other modes count what they let through; and a worker that could not load
                # the newest list answers for nobody but itself.
                if known and gate.mode is Mode.ENFORCE and gate.generation == words[GENERATION]:
                    front.put(source, result, changes=seen)
            except Exception as error:  # noqa: BLE001 - a fault of ours lets calls through
                count_fault(error)
            return result

        return received

    def _callback(self, verdict: Callable[..., int]) -> Callable[..., int]:
        drop = self._ksr.set_drop
        count_fault = self._count_fault_safely

        def pre_parse(_msg: object = None) -> int:
            if verdict() == DROP:
                try:
                    drop()
                except Exception as error:  # noqa: BLE001 - a fault of ours lets calls through
                    count_fault(error)
            return PASS

        return pre_parse

    # Off the hot path --------------------------------------------------------------------------

    def _count_fault_safely(self, error: Exception) -> None:
        with contextlib.suppress(Exception):  # there is nobody left to tell
            self.count_fault(error)

    def _judge(self, source: object, variable: str) -> int:
        """Decide on a source that is not among the cached ones."""
        words, slot, gate = self._board.words, self._slot, self._gate
        if not isinstance(source, str) or not gate.looks_up or not gate.is_banned(source):
            words[slot + PASSED] += 1
            return PASS
        mode = gate.mode
        words[slot + (DROPPED if mode is Mode.ENFORCE else WOULD_DROP)] += 1
        self._say_first(source, "first-drop" if mode is Mode.ENFORCE else "would-drop", variable)
        return DROP if mode is Mode.ENFORCE else PASS

    def _say_first(self, source: str, event: str, variable: str) -> None:
        """Say the first drop of a source; a fault in saying so does not save it."""
        try:
            if not self._claim(source):
                return
            if variable == _REQUEST:
                transport, port, message = self._get("$proto"), self._get("$sp"), self._get("$mb")
            else:
                number = self._get("$rcv(proto)")
                transport = _TRANSPORTS.get(number, "?") if isinstance(number, int) else "?"
                port, message = self._get("$rcv(srcport)"), self._get("$rcv(buf)")
            if self._may_say(source):
                self._log(
                    event,
                    source=source,
                    transport=transport,
                    port=port,
                    line=_first_line(message),
                )
        except Exception as error:  # noqa: BLE001 - the verdict stands, said or not
            self._count_fault_safely(error)

    def may_say(self, source: str) -> bool:
        """Tell whether a line about a source is due: see ``log.first_drops``."""
        return self._claim(source) and self._may_say(source)

    def _claim(self, source: str) -> bool:
        if not self.log_settings.first_drops:
            return False
        return self._board.claim(_fingerprint(source), now=self._clock.now(), slot=self._slot)

    def _may_say(self, source: str) -> bool:
        return self._board.may_say(
            _fingerprint(source),
            now=self._clock.now(),
            slot=self._slot,
            interval=self.log_settings.interval,
            limit=self.log_settings.first_drops,
        )

    def _get(self, variable: str) -> object:
        try:
            return self._ksr.pv.get(variable)
        except UnicodeDecodeError:
            return "(not UTF-8)"

    def _refresh(self) -> tuple[int, int]:
        """Take the new list and the new settings; what is bad leaves what is in use."""
        self._seen = self._board.words[CHANGES]
        generation = self._board.generation
        if generation != self._gate.generation:
            try:
                self._gate.use(self._load(generation))
                self._board.use(self._slot, generation)
            except ApibanError as error:
                self.count_fault(error)
        if self._board.words[SETTINGS] != self._settings_seen:
            self._settings_seen = self._board.words[SETTINGS]
            try:
                self._settings_changed()
            except Exception as error:  # noqa: BLE001 - the last good settings stay
                self.count_fault(error)
        return self._on_hit()

    def _on_hit(self) -> tuple[int, int]:
        """Give which word counts a cached source, and what becomes of it."""
        mode = self._gate.mode
        return (
            self._slot + (WOULD_DROP if mode is Mode.SHADOW else DROPPED),
            DROP if mode is Mode.ENFORCE else PASS,
        )


def _fingerprint(source: str) -> int:
    return zlib.crc32(pack(source))


def _first_line(message: object) -> str:
    return str(message or "").partition("\n")[0].strip()
