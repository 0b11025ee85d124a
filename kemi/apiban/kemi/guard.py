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
from apiban.errors import ApibanError, SettingsError
from apiban.gate import DROP, PASS, Board, Front, Gate, Tally
from apiban.gate.board import (
    CHANGES,
    DROPPED,
    DROPPED_BY,
    FAULTS,
    GENERATION,
    PASSED,
    SETTINGS,
    WOULD_DROP,
)
from apiban.gate.hits import Details
from apiban.kemi.calls import Calls
from apiban.log import Log, where
from apiban.settings.model import LogSettings, Mode
from apiban.snapshot import Origin, Snapshot

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["DROP", "PASS", "SPARED", "Guard"]

# A message of a listed source that passes, by itself alone: nobody may cache it as a verdict.
SPARED: Final = 3

_FAULT_EVERY: Final = 60.0
# How the source is named before a message is parsed, and after.
_EARLY: Final = "$rcv(srcip)"
_REQUEST: Final = "$si"
_PORTS: Final = 1 << 16
_TRANSPORTS: Final = {1: "udp", 2: "tcp", 3: "tls", 4: "sctp", 5: "ws", 6: "wss"}


class Guard:
    """Judges sources for one process.

    ``verdict()`` gives DROP, PASS or SPARED for the message at hand in the pre-parse hook;
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
        tally: Tally,
        clock: Clock,
        log: Log,
        log_settings: LogSettings,
        load: Callable[[int], Snapshot],
        settings_changed: Callable[[], None],
        calls: Calls | None = None,
    ) -> None:
        """Take the process's parts.

        ``load`` maps the snapshot of a generation or raises SnapshotError; ``settings_changed``
        is called when the node's settings are others, and raises SettingsError when they are bad
        again by now; ``calls`` spares those of listed peers.
        """
        self._ksr = ksr
        self._board = board
        self._gate = gate
        self._front = front
        self._tally = tally
        self._clock = clock
        self._log = log
        self.log_settings = log_settings
        self._load = load
        self._settings_changed = settings_changed
        self._calls = calls
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

    def keep_up(self) -> None:
        """Take what is new: where native code answers for all who come, no verdict looks for it."""
        if self._board.words[CHANGES] != self._seen:
            self._refresh()

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
        listed, others = self._gate.listed, self._gate.others
        get = self._ksr.pv.get
        judge, drop = self._judge, self._drop
        refresh = self._refresh
        sample = self._sample
        count_fault = self._count_fault_safely
        seen = self._seen
        hit, on_hit = self._on_hit()
        due = 0

        def verdict(*_: object) -> int:
            nonlocal seen, hit, on_hit, due
            try:
                if words[CHANGES] != seen:
                    seen = words[CHANGES]
                    hit, on_hit = refresh()
                    due = 0
                source = get(variable)
                if source in listed:
                    if others and source in others:
                        return drop(source, others[source], variable)
                    count = words[hit] + 1
                    words[hit] = count
                    if count >= due:
                        due = sample(source, count)
                    return on_hit
                return judge(source, variable)
            except Exception as error:  # noqa: BLE001 - a fault of ours lets calls through
                count_fault(error)
                return PASS

        return verdict

    def _fronted(self, verdict: Callable[..., int]) -> Callable[..., int]:
        """Build ``received``: what the front does not know comes here, so it is less hot."""
        words, gate, front = self._board.words, self._gate, self._front
        listed, others = gate.listed, gate.others
        judge, drop, refresh, sample = self._judge, self._drop, self._refresh, self._sample
        count_fault = self._count_fault_safely
        seen = self._seen
        hit, on_hit = self._on_hit()
        due = 0

        def received(_msg: object = None, source: str = "", *_: object) -> int:
            nonlocal seen, hit, on_hit, due
            if not source:  # a route without the front gives no argument
                return verdict()
            result = PASS
            try:
                if words[CHANGES] != seen:
                    seen = words[CHANGES]
                    hit, on_hit = refresh()
                    due = 0
                count, origin = 0, 0
                known = source in listed
                if not known:
                    result = judge(source, _EARLY)
                    known = result == PASS and front.has_met(source)
                elif others and source in others:
                    origin = others[source]
                    result = drop(source, origin, _EARLY)
                else:
                    count = words[hit] + 1
                    words[hit] = count
                    result = on_hit
                # The other modes count what they let through; and a worker that could not load
                # the newest list answers for nobody but itself.
                may_put = gate.mode is Mode.ENFORCE and gate.generation == words[GENERATION]
                is_put = known and may_put and front.put(source, result, origin, changes=seen)
                # Native code counts each of its messages from now on: what is not told yet, is now.
                if count and (is_put or count >= due):
                    due = sample(source, count)
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
        origin = gate.origin(source) if gate.looks_up and isinstance(source, str) else None
        if origin is None or not isinstance(source, str):
            words[slot + PASSED] += 1
            return PASS
        enforced = gate.mode is Mode.ENFORCE
        if enforced and self._calls is not None and self._calls.knows(source):
            gate.forget(source)  # each of its messages is looked at while its grace lasts
            if self._calls.spares(source, variable):
                words[slot + PASSED] += 1
                return SPARED
        return self._drop(source, origin, variable)

    def _drop(self, source: str, origin: int, variable: str) -> int:
        """Drop a message of a banned source, if the mode is to, and count it."""
        enforced = self._gate.mode is Mode.ENFORCE
        word = DROPPED_BY[origin] if enforced else WOULD_DROP
        self._board.words[self._slot + word] += 1
        self._note(source, origin, variable, enforced=enforced)
        return DROP if enforced else PASS

    def _note(self, source: str, origin: int, variable: str, *, enforced: bool) -> None:
        """Count the drop for its source, and say its first; a fault in that does not save it."""

        def describe() -> Details:
            return self._details(variable)

        try:
            counted = not enforced or origin == Origin.FEED
            tally = self._tally
            first = tally.met(source, origin, describe, would_drop=not enforced, counted=counted)
            if not (first and self._claim(source)):
                return
            details = describe()
            if self._may_say(source):
                self._log(
                    "first-drop" if enforced else "would-drop",
                    source=source,
                    origin=Origin(origin),
                    transport=details.transport,
                    port=details.port,
                    line=details.line,
                )
        except Exception as error:  # noqa: BLE001 - the verdict stands, said or not
            self._count_fault_safely(error)

    def _details(self, variable: str) -> Details:
        """Read from the message at hand what is known of it cheaply."""
        if variable == _REQUEST:
            transport, port, message = self._get("$proto"), self._get("$sp"), self._get("$mb")
        else:
            number = self._get("$rcv(proto)")
            transport = _TRANSPORTS.get(number, "?") if isinstance(number, int) else "?"
            port, message = self._get("$rcv(srcport)"), self._get("$rcv(buf)")
        return Details(
            str(transport or "?"),
            port if isinstance(port, int) and 0 <= port < _PORTS else 0,
            _first_line(message),
        )

    def _sample(self, source: object, count: int) -> int:
        """Count for a cached source what was not counted exactly; give when to do so again."""
        try:
            return self._tally.sample(str(source), count)
        except Exception as error:  # noqa: BLE001 - the verdict stands, counted or not
            self._count_fault_safely(error)
            return count + 1000

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
        settings = self._board.words[SETTINGS]
        if settings != self._settings_seen:
            try:
                self._settings_changed()
            except SettingsError:
                # Edited since the sync process found them good, and it says what is wrong: the
                # last good ones stay, and with the next change of anything they are read again.
                return self._on_hit()
            except Exception as error:  # noqa: BLE001 - the last good settings stay
                self.count_fault(error)
            self._settings_seen = settings
        return self._on_hit()

    def _on_hit(self) -> tuple[int, int]:
        """Give which word counts a cached source, and what becomes of it."""
        mode = self._gate.mode
        word = self._slot + (WOULD_DROP if mode is Mode.SHADOW else DROPPED)
        self._tally.begin(word, self._board.words[word], would_drop=mode is Mode.SHADOW)
        return word, DROP if mode is Mode.ENFORCE else PASS


def _fingerprint(source: str) -> int:
    return zlib.crc32(pack(source))


def _first_line(message: object) -> str:
    return str(message or "").partition("\n")[0].strip()
