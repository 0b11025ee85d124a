"""What the workers learned, in the sync process: bans, good sources, and sightings for a feed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apiban.address import Network
from apiban.errors import StoreError
from apiban.honeypot.records import Sighting
from apiban.settings import Settings, load_settings
from apiban.settings.model import PathSettings
from apiban.sync.good import Good, good_path, read_good
from apiban.sync.learned import Learned

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog

DETECTED: dict[str, Any] = {
    "source": "192.0.2.1",
    "rule": "failures",
    "count": 10,
    "window": 300.0,
    "ban_for": 3600.0,
    "transport": "udp",
    "method": "REGISTER",
    "proof": "nonce",
    "user": "100",
    "agent": "telephone",
}


class _Process:
    """Stands for the sync process: ``why_not`` is why a ban is refused, or an error."""

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings | None = settings
        self.has_store = True
        self.bans: list[tuple[str, str, float]] = []
        self.why_not: str | Exception = ""

    def ban(self, network: Network, *, reason: str, seconds: float) -> str:
        if isinstance(self.why_not, Exception):
            raise self.why_not
        if not self.why_not:
            self.bans.append((str(network), reason, seconds))
        return self.why_not


class _Sightings:
    """Stands for the queue."""

    def __init__(self) -> None:
        self.added: list[Sighting] = []
        self.closed = False

    def add(self, sighting: Sighting) -> None:
        self.added.append(sighting)

    def close(self) -> None:
        self.closed = True


class _Taker:
    def __init__(self, folder: Path) -> None:
        settings = load_settings(folder / "none.toml", {})
        self.runtime = folder
        self.settings = replace(settings, paths=PathSettings(folder, folder))
        self.process = _Process(self.settings)
        self.clock, self.log = ManualClock(), MemoryLog()
        self.made: list[_Sightings] = []
        self.learned = self.begin()

    def begin(self) -> Learned:
        """Begin anew, as a sync process that was started again."""
        return Learned(
            self.process,  # type: ignore[arg-type]
            clock=self.clock,
            log=self.log,
            make_sightings=lambda _: self._make(),  # type: ignore[arg-type, return-value]
        )

    def _make(self) -> _Sightings:
        self.made.append(_Sightings())
        return self.made[-1]

    def take(self, kind: str, **fields: Any) -> None:
        self.learned.told([f"{kind} {json.dumps(fields)}".encode()])
        self.learned.tick()

    def was_good(self, source: str, what: str = "called") -> None:
        self.clock.tick(1)
        self.take("good", source=source, what=what, at=self.clock.now())

    @property
    def good(self) -> list[Good]:
        return read_good(good_path(self.runtime))


@pytest.fixture
def taker(tmp_path: Path) -> _Taker:
    """Give one with a store, and a feed to report to."""
    return _Taker(tmp_path)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("failures", "detected: 10 refused credentials in 300 s"),
        ("users", "detected: 10 different failing users in 300 s"),
        ("agents", "detected: the user agent of a scanner"),
        ("requests", "detected: 10 requests in 300 s"),
    ],
)
def test_detected_source_is_banned_said_and_reported(taker: _Taker, rule: str, reason: str) -> None:
    """With a reason that an operator can read."""
    taker.take("detected", **{**DETECTED, "rule": rule})
    assert taker.process.bans == [("192.0.2.1", reason, 3600.0)]
    ((event, fields),) = taker.log.entries
    assert event == "detected"
    assert {**fields, "source": str(fields["source"])} == {
        name: DETECTED[name] for name in ("source", "count", "window", "ban_for", "proof")
    } | {"rule": rule}
    (sighting,) = taker.made[0].added
    assert (sighting.source, sighting.proof, sighting.count) == ("192.0.2.1", "nonce", 10)
    assert (sighting.users, sighting.user_agent) == (("100",), "telephone")
    assert (sighting.method, sighting.at) == ("REGISTER", taker.clock.now())


@pytest.mark.parametrize(
    ("agent", "tool"),
    [("SIPVicious", "sipvicious"), ("My Friendly-Scanner", "sipvicious"), ("x", None), ("", None)],
)
def test_sighting_names_its_tool(taker: _Taker, agent: str, tool: str | None) -> None:
    """By the user agent, as a honeypot names it."""
    taker.take("detected", **{**DETECTED, "agent": agent})
    (sighting,) = taker.made[0].added
    assert (sighting.tool, sighting.user_agent) == (tool, agent or None)


@pytest.mark.parametrize("why", ["the allow list", StoreError("the disk is full")])
def test_source_that_is_not_banned_is_not_reported(taker: _Taker, why: str | Exception) -> None:
    """It is said why not."""
    taker.process.why_not = why
    taker.take("detected", **DETECTED)
    assert taker.log.fields("detected")[0]["effect"] == f"not banned: {why}"
    assert not taker.made[0].added


def test_it_waits_for_the_store(taker: _Taker) -> None:
    """As at the start, and while the store cannot be opened."""
    taker.process.has_store = False
    taker.take("detected", **DETECTED)
    assert not taker.log.entries
    taker.process.has_store = True
    taker.learned.tick()
    taker.learned.tick()
    assert len(taker.process.bans) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"detected {}",
        b'detected {"source": "nobody"}',
        json.dumps(DETECTED).encode(),
        b"detected " + json.dumps({**DETECTED, "rule": "another"}).encode(),
        b"detected " + json.dumps({**DETECTED, "count": "many"}).encode(),
        b'good {"source": "192.0.2.1", "what": "sang", "at": 1}',
        b'other {"source": "192.0.2.1"}',
    ],
)
def test_line_that_is_none_is_let_go(taker: _Taker, line: bytes) -> None:
    """The next one is taken all the same."""
    taker.learned.told([line, b"detected " + json.dumps(DETECTED).encode()])
    taker.learned.tick()
    assert len(taker.process.bans) == 1
    assert taker.log.names() == ["detected"]


def test_other_report_settings_open_the_queue_anew(taker: _Taker) -> None:
    """And others leave it alone."""
    taker.learned.tick()
    taker.process.settings = replace(taker.settings)
    taker.learned.tick()
    assert len(taker.made) == 1
    taker.process.settings = replace(
        taker.settings, report=replace(taker.settings.report, url="http://127.0.0.1:1/api/")
    )
    taker.learned.tick()
    assert len(taker.made) == 2
    assert taker.made[0].closed
    taker.learned.close()
    assert taker.made[1].closed


# Good sources ----------------------------------------------------------------------------------


def test_good_source_is_said_and_kept(taker: _Taker) -> None:
    """The latest first, each kind once."""
    taker.was_good("192.0.2.1")
    taker.was_good("192.0.2.2", "registered")
    taker.was_good("192.0.2.1")
    assert [(one.source, one.what) for one in taker.good] == [
        ("192.0.2.1", "called"),
        ("192.0.2.2", "registered"),
    ]
    assert taker.good[0].at == taker.clock.now()
    assert taker.log.names() == ["would-drop-good"] * 3
    assert good_path(taker.runtime).stat().st_mode & 0o777 == 0o640


def test_record_goes_on_after_a_restart(taker: _Taker) -> None:
    """A new sync process adds to what the old one wrote."""
    taker.was_good("192.0.2.1")
    taker.learned = taker.begin()
    taker.was_good("192.0.2.2")
    assert [one.source for one in taker.good] == ["192.0.2.2", "192.0.2.1"]


def test_record_is_bounded(taker: _Taker) -> None:
    """The latest thousand are kept, and can be read."""
    for number in range(1003):
        taker.was_good(f"192.0.{number // 256}.{number % 256}")
    sources = [one.source for one in taker.good]
    assert len(sources) == 1000
    assert sources[0] == "192.0.3.234"
    assert sources[-1] == "192.0.0.3"


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'[{"source": 1}]', b"\xff"])
def test_record_that_cannot_be_read_is_none(taker: _Taker, content: bytes) -> None:
    """And is written anew."""
    good_path(taker.runtime).write_bytes(content)
    assert taker.good == []
    taker.was_good("192.0.2.1")
    assert len(taker.good) == 1


def test_folder_that_is_gone_stops_nothing(taker: _Taker) -> None:
    """The line is said all the same."""
    gone = replace(taker.settings, paths=PathSettings(taker.runtime, taker.runtime / "gone"))
    taker.process.settings = gone
    taker.was_good("192.0.2.1")
    assert taker.log.names() == ["would-drop-good"]
