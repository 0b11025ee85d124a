from collections.abc import Callable

import pytest
from apiban.errors import SettingsError
from apiban.kemi import DROP, PASS
from apiban.settings import Mode
from apiban.settings.model import LogSettings
from apiban.snapshot import Origin

from tests.unit.kemi.parts import LISTED, SIP, UNLISTED, Worker, packet


def test_listed_source_is_dropped_and_another_passes() -> None:
    """Both are counted, each packet once."""
    worker = Worker(LISTED)
    assert [worker.drops(LISTED) for _ in range(3)] == [True] * 3
    assert [worker.drops(UNLISTED) for _ in range(2)] == [False] * 2
    assert worker.counts == (3, 0, 2, 0)


def test_verdict_is_what_a_native_configuration_compares() -> None:
    """2 drops, 1 passes; the message itself is left alone."""
    worker = Worker(LISTED)
    worker.ksr.variables = packet(LISTED)
    assert worker.guard.verdict() == DROP == 2
    assert worker.guard.verdict("a message", "an argument") == DROP
    worker.ksr.variables = packet(UNLISTED)
    assert worker.guard.verdict() == PASS == 1
    assert worker.ksr.dropped == 0


def test_request_verdict_goes_by_si() -> None:
    """At the top of request_route $rcv(...) is null, and $si is the source."""
    worker = Worker(LISTED)
    worker.ksr.variables = {"$si": LISTED, "$sp": 5062, "$proto": "tcp", "$mb": "OPTIONS x\r\n"}
    assert worker.guard.request_verdict() == DROP
    (said,) = worker.log.fields("first-drop")
    assert (said["transport"], said["port"], said["line"]) == ("tcp", 5062, "OPTIONS x")
    worker.ksr.variables = {"$si": UNLISTED, "$rcv(srcip)": LISTED}
    assert worker.guard.request_verdict() == PASS


def test_pre_parse_hook_does_not_go_by_si() -> None:
    """There $si is a fake."""
    worker = Worker(LISTED)
    assert not worker.drops(UNLISTED, **{"$si": LISTED})
    assert worker.drops(LISTED, **{"$si": UNLISTED})


def test_shadow_counts_and_drops_nothing() -> None:
    """Cached or not, each packet is counted as one that would have been dropped."""
    worker = Worker(LISTED, mode=Mode.SHADOW)
    assert not any(worker.drops(LISTED) for _ in range(5))
    assert not worker.drops(UNLISTED)
    assert worker.counts == (0, 5, 1, 0)
    assert worker.log.names() == ["would-drop"]


def test_off_passes_everything() -> None:
    """Nothing is looked up, said or counted as listed."""
    worker = Worker(LISTED, mode=Mode.OFF)
    assert not any(worker.drops(LISTED) for _ in range(5))
    assert worker.counts == (0, 0, 5, 0)
    assert worker.log.names() == []


def test_gate_without_a_snapshot_passes_everything() -> None:
    """A node without a list is a node without drops."""
    worker = Worker(LISTED)
    worker.gate.use(None)
    worker.board.announce(0)  # nothing was published either
    worker.guard.sign_in(1)
    assert not worker.drops(LISTED)
    assert worker.generation == 0


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("before", list(Mode))
@pytest.mark.parametrize("after", list(Mode))
def test_change_of_mode_is_in_force_with_the_next_message(
    before: Mode, after: Mode, *, cached: bool
) -> None:
    """From any mode to any other, for a source that was met before too."""
    worker = Worker(LISTED, mode=before)
    if cached:
        worker.drops(LISTED)
    worker.publish(LISTED, mode=after)
    for _ in range(2):
        assert worker.drops(LISTED) is (after is Mode.ENFORCE)


def test_new_generation_is_adopted_with_the_next_message() -> None:
    """What is new is dropped, what is gone passes, and the worker says what it uses."""
    worker = Worker(LISTED)
    assert worker.drops(LISTED)
    assert worker.loads == []
    worker.publish(UNLISTED)
    assert worker.drops(UNLISTED)
    assert not worker.drops(LISTED)
    assert worker.generation == 2
    assert worker.loads == [2]


def test_snapshot_is_loaded_once_for_either_hook() -> None:
    """Each hook adopts it by itself, and both use the same list."""
    worker = Worker(LISTED)
    worker.publish(UNLISTED)
    assert worker.drops(UNLISTED)
    worker.ksr.variables = {"$si": UNLISTED, "$sp": 1, "$proto": "udp", "$mb": "x"}
    assert worker.guard.request_verdict() == DROP
    assert set(worker.loads) == {2}


def test_bad_snapshot_keeps_the_old_one_and_is_one_fault() -> None:
    """Not one a packet; the next good one is adopted."""
    worker = Worker(LISTED)
    worker.publish(UNLISTED, whole=False)
    assert [worker.drops(LISTED) for _ in range(100)] == [True] * 100
    assert worker.counts == (100, 0, 0, 1)
    assert len(worker.log.fields("fault")) == 1
    assert worker.generation == 1
    worker.publish(UNLISTED)
    assert worker.drops(UNLISTED)
    assert worker.generation == 3


def test_ban_ends_in_its_second() -> None:
    """Also for a source under flood; the list need not change for it."""
    worker = Worker(LISTED)
    worker.clock.set_wall(1_900_000_000 - 30)
    assert worker.drops(LISTED)
    worker.clock.tick(29)
    assert worker.drops(LISTED)
    worker.clock.tick(1)
    assert not worker.drops(LISTED)


@pytest.mark.parametrize(
    ("listed", "source"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("192.0.2.1", "::FFFF:C000:0201"),
        ("192.0.2.1", "[::ffff:192.0.2.1]"),
    ],
)
def test_mapped_source_is_the_ipv4_one(listed: str, source: str) -> None:
    """A dual-stack listener's spelling does not let a source through."""
    worker = Worker(listed)
    assert worker.drops(source)
    assert worker.drops(source)
    assert worker.counts[0] == 2


@pytest.mark.parametrize("source", [None, 5, "", "not an address", "1.0.0.127.5", "\x7f"])
def test_source_that_is_no_address_passes(source: str | int | None) -> None:
    """It is no fault of anybody's."""
    worker = Worker(LISTED)
    worker.ksr.variables = {"$rcv(srcip)": source}
    assert worker.guard.verdict() == PASS
    assert worker.counts == (0, 0, 1, 0)


# Faults ----------------------------------------------------------------------------------------


def _broken(_name: str) -> None:
    raise RuntimeError("no message")


def test_fault_lets_the_message_through_and_is_said_once_a_minute() -> None:
    """Each is counted."""
    worker = Worker(LISTED)
    worker.ksr.on("pv.get", _broken)
    worker.guard.sign_in(1)
    assert not any(worker.drops(LISTED) for _ in range(50))
    assert worker.counts == (0, 0, 0, 50)
    assert len(worker.log.fields("fault")) == 1
    worker.clock.tick(59)
    worker.drops(LISTED)
    assert len(worker.log.fields("fault")) == 1
    worker.clock.tick(1)
    worker.drops(LISTED)
    assert len(worker.log.fields("fault")) == 2
    assert worker.log.fields("fault")[0]["what"] == "RuntimeError"


def test_fault_that_cannot_be_said_lets_the_message_through() -> None:
    """Even a log that fails costs no call."""
    worker = Worker(LISTED)
    worker.ksr.on("pv.get", _broken)
    worker.guard._log = _broken  # type: ignore[assignment]
    assert not worker.drops(LISTED)
    assert worker.counts[3] == 1


def test_unforeseen_failure_of_the_load_keeps_the_old_list() -> None:
    """It is counted; the next message is dropped by the list that is in use."""
    worker = Worker(LISTED)
    worker.files.clear()
    worker.guard._load = _broken  # type: ignore[assignment]
    worker.publish(UNLISTED)
    worker.drops(LISTED)
    assert worker.drops(LISTED)
    assert worker.counts[3] == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xfe\x00\x80" * 20, id="binary"),
        pytest.param(b"OPTIONS sip:\xe9@x SIP/2.0\r\n\r\n", id="latin-1"),
    ],
)
def test_message_that_is_not_utf8_is_dropped_and_said(data: bytes) -> None:
    """Kamailio's text of it raises: that is no reason to let it through, and no fault."""
    worker = Worker(LISTED)
    assert worker.drops(LISTED, data)
    assert worker.log.names() == ["first-drop"]
    assert "UTF-8" in str(worker.log.fields("first-drop")[0]["line"])
    assert worker.counts == (1, 0, 0, 0)


@pytest.mark.parametrize("data", [None, b"", b"\r\n\r\n" * 20, b"\x00" * 40])
def test_message_without_a_first_line_is_dropped(data: bytes | None) -> None:
    """Null, empty lines and NULs are text enough."""
    worker = Worker(LISTED)
    assert worker.drops(LISTED, data)
    assert worker.log.names() == ["first-drop"]


def _only_the_source_works(worker: Worker) -> None:
    def get(name: str) -> str:
        if name == "$rcv(srcip)":
            return LISTED
        raise SystemError("a NUL byte, a number too large")

    worker.ksr.on("pv.get", get)


@pytest.mark.parametrize("broken", ["variables", "log"])
def test_first_message_is_dropped_though_its_line_cannot_be_written(broken: str) -> None:
    """Whatever fails in saying it, a listed source's first message does not get through."""
    worker = Worker(LISTED)
    if broken == "variables":
        _only_the_source_works(worker)
    else:
        worker.guard._log = _broken  # type: ignore[assignment]
    assert worker.drops(LISTED)
    assert worker.counts == (1, 0, 0, 1)


def test_failing_drop_raises_nothing_into_kamailio() -> None:
    """An exception in a callback is a traceback a packet in the log."""
    worker = Worker(LISTED)

    def fail() -> None:
        raise SystemError

    worker.ksr.on("set_drop", fail)
    worker.ksr.variables = packet(LISTED)
    assert worker.guard.pre_parse(object()) == PASS


# Sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
@pytest.mark.parametrize("origin", list(Origin))
def test_drops_are_counted_for_their_source_and_origin(origin: Origin, mode: Mode) -> None:
    """What the source's first message was is kept, and each mode has a count of its own."""
    worker = Worker()
    worker.publish(LISTED, mode=mode, origin=origin)
    worker.drops(LISTED)
    worker.clock.tick(7)
    for _ in range(5000):
        worker.drops(LISTED, b"INVITE sip:x SIP/2.0\r\n\r\n")
    hit = worker.hits.of(LISTED)
    assert hit is not None
    enforced = mode is Mode.ENFORCE
    number, none = (hit.dropped, hit.would_drop) if enforced else (hit.would_drop, hit.dropped)
    assert none == 0
    assert hit.exact is (origin is not Origin.FEED)
    assert number == 5001 if hit.exact else 5001 - 128 <= number <= 5001
    assert (hit.source, hit.origin, hit.transport, hit.port) == (LISTED, origin, "udp", 5062)
    assert hit.line == "OPTIONS sip:100@192.0.2.9 SIP/2.0"
    assert hit.last_seen - hit.first_seen == 7
    counts = worker.board.total()
    by = (counts.dropped_feed, counts.dropped_local, counts.dropped_detector)
    assert by == tuple(5001 if enforced and one is origin else 0 for one in Origin)
    assert counts.would_drop == (0 if enforced else 5001)
    assert worker.log.fields("first-drop" if enforced else "would-drop")[0]["origin"] is origin


def test_samples_of_a_flood_in_step_are_fair() -> None:
    """Two sources that take turns get half each, not all or nothing."""
    worker = Worker(LISTED, "192.0.2.3")
    for _ in range(20_000):
        worker.drops(LISTED)
        worker.drops("192.0.2.3")
    counts = [worker.hits.of(source) for source in (LISTED, "192.0.2.3")]
    dropped = [hit.dropped for hit in counts if hit is not None]
    assert 40_000 - 128 <= sum(dropped) <= 40_000
    assert all(16_000 < number < 24_000 for number in dropped)


def test_who_passes_is_no_hit() -> None:
    """Good sources are never written down."""
    worker = Worker(LISTED)
    worker.drops(UNLISTED)
    worker.publish(LISTED, mode=Mode.OFF)
    worker.drops(LISTED)
    assert worker.hits.all() == []


def test_fault_in_counting_for_a_source_changes_no_verdict() -> None:
    """First met, cached and sampled: each is dropped and counted, and the fault is one of ours."""
    worker = Worker(LISTED)
    worker.hits.place = _broken  # type: ignore[assignment,method-assign]
    assert all(worker.drops(LISTED) for _ in range(3000))
    assert worker.counts[0] == 3000
    assert worker.counts[3] > 0


# Lines -----------------------------------------------------------------------------------------


def test_first_drop_says_what_is_known_cheaply() -> None:
    """Source, transport, port and first line, once for a source."""
    worker = Worker(LISTED)
    for _ in range(10):
        worker.drops(LISTED)
    assert worker.log.entries == [
        (
            "first-drop",
            {
                "source": LISTED,
                "origin": Origin.FEED,
                "transport": "udp",
                "port": 5062,
                "line": "OPTIONS sip:100@192.0.2.9 SIP/2.0",
            },
        )
    ]


@pytest.mark.parametrize(
    ("number", "name"), [(1, "udp"), (2, "tcp"), (3, "tls"), (5, "ws"), (99, "?"), (None, "?")]
)
def test_transport_has_its_name(number: int | None, name: str) -> None:
    """A number that we do not know is no fault."""
    worker = Worker(LISTED)
    worker.drops(LISTED, **{"$rcv(proto)": number})
    assert worker.log.fields("first-drop")[0]["transport"] == name


def test_lines_of_a_flood_are_limited() -> None:
    """Ten thousand sources in a minute are ten lines, and every packet is dropped."""
    sources = [f"198.51.{n >> 8}.{n & 255}" for n in range(2000)]
    worker = Worker(*sources)
    assert all(worker.drops(source) for source in sources)
    assert len(worker.log.names()) == 10
    worker.clock.tick(3600)
    assert all(worker.drops(source) for source in sources)
    assert len(worker.log.names()) == 20


def test_limit_of_lines_follows_the_settings() -> None:
    """Changed while running, and 0 for none."""
    worker = Worker(LISTED, first_drops=0)
    worker.drops(LISTED)
    assert worker.log.names() == []
    worker.guard.log_settings = LogSettings(interval=60.0, first_drops=5)
    worker.publish(UNLISTED)
    worker.drops(UNLISTED)
    assert worker.log.names() == ["first-drop"]


def test_source_that_another_worker_met_is_not_said_again() -> None:
    """The board remembers over a new list too."""
    worker = Worker(LISTED)
    worker.drops(LISTED)
    worker.publish(LISTED)
    worker.drops(LISTED)
    assert len(worker.log.names()) == 1


# Settings --------------------------------------------------------------------------------------


def test_settings_are_read_once_when_they_are_others() -> None:
    """With the list that comes after the change, and not with each list."""
    worker = Worker(LISTED)
    worker.board.announce_settings()
    worker.publish(LISTED)
    for _ in range(5):
        assert worker.drops(LISTED)
    worker.publish(LISTED)
    worker.drops(LISTED)
    assert worker.settings_read == 1


def _fails_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_settings_that_cannot_be_taken_keep_the_last_ones() -> None:
    """It is a fault, said once; drops go on."""
    worker = Worker(LISTED)
    worker.read_settings = _fails_with(RuntimeError("a fault of ours"))
    worker.board.announce_settings()
    for _ in range(2):
        worker.publish(LISTED)
        assert all(worker.drops(LISTED) for _ in range(5))
    assert worker.counts == (10, 0, 0, 1)


def test_settings_that_are_bad_by_now_are_no_fault() -> None:
    """Edited since they were found good: they are read again with the next change of anything."""
    worker = Worker(LISTED)
    worker.read_settings = _fails_with(SettingsError(("mode = x: must be another",)))
    worker.board.announce_settings()
    assert all(worker.drops(LISTED) for _ in range(5))
    assert worker.settings_read == 1
    worker.publish(LISTED)
    assert all(worker.drops(LISTED) for _ in range(5))
    worker.read_settings = lambda: None
    for _ in range(2):
        worker.publish(LISTED)
        assert worker.drops(LISTED)
    assert worker.settings_read == 3
    assert worker.counts == (12, 0, 0, 0)
    assert "fault" not in worker.log.names()


def test_settings_are_read_though_no_new_list_comes() -> None:
    """Where the store is broken nothing is published, and the upstreams still change."""
    worker = Worker(LISTED)
    worker.board.announce_settings()
    worker.drops(LISTED)
    assert worker.settings_read == 1


def test_counts_go_to_the_slot_of_the_rank() -> None:
    """Signing in again, as after a fork, moves the counting."""
    worker = Worker(LISTED)
    worker.drops(LISTED)
    worker.guard.sign_in(2)
    worker.drops(LISTED)
    worker.drops(LISTED)
    assert {slot.rank: slot.counts.dropped for slot in worker.board.slots()} == {1: 1, 2: 2}


def test_hot_path_asks_kamailio_for_nothing_but_the_source() -> None:
    """A source that was met costs one look-up of a variable and the drop."""
    worker = Worker(LISTED)
    worker.drops(LISTED, SIP)
    worker.ksr.calls.clear()
    worker.drops(LISTED, SIP)
    assert [call.name for call in worker.ksr.calls] == ["pv.get", "set_drop"]
