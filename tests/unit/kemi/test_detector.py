"""Each rule of the local detector, over a clock of the test's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.kemi.detector import Attempt, Detector
from apiban.kemi.memory import Memory, Pages
from apiban.settings.model import DetectSettings
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import ManualClock

SETTINGS = DetectSettings(
    enabled=True,
    failures=3,
    failures_window=60.0,
    failures_ban=600.0,
    users=3,
    users_window=60.0,
    users_ban=6000.0,
    agents=("friendly-scanner",),
    agents_ban=7000.0,
    requests=5,
    requests_window=10.0,
    requests_ban=60.0,
)
BAD = Attempt("REGISTER", "tcp", "192.0.2.1", 5060, "connection", True, "100", "telephone")  # noqa: FBT003
ALL = {"users": 0, "requests": 0, "failures": 0}


class _Detector(Detector):
    """A detector that remembers what it told."""

    def __init__(self, **changes: Any) -> None:
        self.clock = ManualClock()
        self.told: list[Mapping[str, Any]] = []
        self.room = True
        super().__init__(
            Memory(Pages(), uptime=self.clock.uptime),
            settings=replace(SETTINGS, **changes),
            exempt=(parse_network("203.0.113.0/24"),),
            tell=self._take,
        )

    def _take(self, kind: str, fields: Mapping[str, Any]) -> bool:
        assert kind == "detected"
        if self.room:
            self.told.append(fields)
        return self.room

    @property
    def rules(self) -> list[tuple[str, str, int]]:
        return [(one["source"], one["rule"], one["count"]) for one in self.told]

    def refuses(self, times: int, attempt: Attempt = BAD, status: int = 401) -> None:
        for _ in range(times):
            self.refused(attempt, status, stale=False)


# Failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 407])
def test_refused_credentials_ban_at_the_threshold(status: int) -> None:
    """The third within the window; what is told names the rule and all that a ban needs."""
    detector = _Detector()
    detector.refuses(2, status=status)
    assert not detector.told
    detector.refuses(1, status=status)
    assert detector.told == [
        {
            "source": "192.0.2.1",
            "rule": "failures",
            "count": 3,
            "window": 60.0,
            "ban_for": 600.0,
            "transport": "tcp",
            "method": "REGISTER",
            "proof": "connection",
            "user": "100",
            "agent": "telephone",
        }
    ]


@pytest.mark.parametrize(
    ("attempt", "status"),
    [
        (replace(BAD, with_credentials=False), 401),  # it is challenged: nothing failed
        (replace(BAD, proof=""), 401),  # anybody may have sent it
        (BAD, 486),
        (BAD, 500),
    ],
)
def test_what_is_no_failure(attempt: Attempt, status: int) -> None:
    """A first challenge, a source that may be forged, a busy callee, a broken server."""
    detector = _Detector()
    detector.refuses(20, attempt, status)
    assert not detector.told


def test_stale_nonce_is_no_failure() -> None:
    """A phone that comes back after a while uses its last nonce first."""
    detector = _Detector()
    for _ in range(20):
        detector.refused(BAD, 401, stale=True)
    assert not detector.told


def test_window_ends() -> None:
    """Few failures over a long time are a forgetful user's."""
    detector = _Detector()
    for _ in range(5):
        detector.refuses(2)
        detector.clock.tick(60)
    assert not detector.told


def test_sources_are_counted_apart() -> None:
    """Two each of two sources are not enough for either."""
    detector = _Detector()
    detector.refuses(2)
    detector.refuses(2, replace(BAD, source="192.0.2.2"))
    assert not detector.told


# Users -----------------------------------------------------------------------------------------


def test_different_users_ban() -> None:
    """Each counts once a window, however often it fails."""
    detector = _Detector(failures=0)
    for user in ("a", "a", "b", "b", "a", "b"):
        detector.refuses(1, replace(BAD, user=user))
    assert not detector.told
    detector.refuses(1, replace(BAD, user="c"))
    assert detector.rules == [("192.0.2.1", "users", 3)]


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "OPTIONS"])
def test_unknown_users_ban(method: str) -> None:
    """Asked for without credentials."""
    detector = _Detector()
    asking = replace(BAD, method=method, with_credentials=False)
    for user in ("a", "b", "c"):
        detector.refuses(1, replace(asking, user=user), 404)
    assert detector.rules == [("192.0.2.1", "users", 3)]


@pytest.mark.parametrize("method", ["INVITE", "REGISTER"])
def test_who_calls_with_success_may_dial_wrong_numbers(method: str) -> None:
    """A provider, or an office: 404 is nothing to ban it for."""
    detector = _Detector()
    detector.succeeded(replace(BAD, method=method))
    for user in "abcdefgh":
        wrong = replace(BAD, method="INVITE", user=user, with_credentials=False)
        detector.refuses(1, wrong, 404)
    assert not detector.told


def test_wrong_numbers_dialled_with_credentials_are_one_user() -> None:
    """Whose they are; that of a phone which registered is none."""
    detector = _Detector(users=2)
    detector.succeeded(replace(BAD, user="good"))
    detector.refuses(8, replace(BAD, method="INVITE", user="good"), 404)
    detector.refuses(8, replace(BAD, method="INVITE", user="another"), 404)
    assert not detector.told


# One address, many phones ----------------------------------------------------------------------


def test_office_is_not_cut_off_by_one_handset() -> None:
    """While phones register: not by failures, a scanner's name, or many requests of one of them."""
    detector = _Detector()
    detector.succeeded(replace(BAD, user="good"))
    detector.refuses(50)
    for _ in range(50):
        detector.asked(replace(BAD, agent="friendly-scanner"))
    assert not detector.told


def test_many_failing_users_cut_an_office_off() -> None:
    """A scanner behind the same address is one."""
    detector = _Detector()
    detector.succeeded(replace(BAD, user="good"))
    for user in ("a", "b", "good", "c"):
        detector.refuses(1, replace(BAD, user=user))
    assert detector.rules == [("192.0.2.1", "users", 3)]


@pytest.mark.parametrize(
    ("method", "with_credentials"),
    [("REGISTER", True), ("INVITE", True), ("OPTIONS", True), ("REGISTER", False)],
)
def test_many_unknown_users_cut_an_office_off(method: str, *, with_credentials: bool) -> None:
    """A server that says 404 of them instead of 403, and phones whose calls are answered."""
    detector = _Detector()
    for good in ("REGISTER", "INVITE"):
        detector.succeeded(replace(BAD, method=good, user="good"))
    trying = replace(BAD, method=method, with_credentials=with_credentials)
    for user in ("a", "b", "good", "c"):
        detector.refuses(1, replace(trying, user=user), 404)
    assert detector.rules == [("192.0.2.1", "users", 3)]


def test_phones_that_fail_first_and_then_register_are_no_failing_users() -> None:
    """As after a restart of the server: each sends a nonce that is not known any more."""
    detector = _Detector(failures=0)
    for user in "abcdefgh":
        detector.refuses(1, replace(BAD, user=user))
        detector.succeeded(replace(BAD, user=user))
    for user in "abcdefgh":  # hours later all at once
        detector.refuses(1, replace(BAD, user=user))
    assert not detector.told


def test_registration_is_good_for_an_hour() -> None:
    """Then failures count again."""
    detector = _Detector()
    detector.succeeded(BAD)
    detector.clock.tick(3599)
    detector.refuses(10)
    assert not detector.told
    detector.clock.tick(1)
    detector.refuses(3, replace(BAD, user="200"))
    assert detector.rules == [("192.0.2.1", "failures", 3)]


def test_call_is_no_registration() -> None:
    """Whoever reaches an open number may not guess passwords for an hour."""
    detector = _Detector()
    detector.succeeded(replace(BAD, method="INVITE"))
    detector.refuses(3)
    assert detector.rules == [("192.0.2.1", "failures", 3)]


# User agents and requests ----------------------------------------------------------------------


def test_scanners_user_agent_bans_at_once() -> None:
    """Whatever its case, anywhere in it."""
    detector = _Detector()
    detector.asked(replace(BAD, agent="My Friendly-Scanner/1.8"))
    assert detector.rules == [("192.0.2.1", "agents", 1)]
    assert detector.told[0]["ban_for"] == 7000.0


def test_too_many_requests_ban() -> None:
    """In a window that begins with the first."""
    detector = _Detector()
    for _ in range(4):
        detector.asked(BAD)
    detector.clock.tick(10)
    for _ in range(4):
        detector.asked(BAD)
    assert not detector.told
    detector.asked(BAD)
    assert detector.rules == [("192.0.2.1", "requests", 5)]


def test_source_that_may_be_forged_is_not_judged() -> None:
    """Neither by its user agent nor by its number."""
    detector = _Detector()
    for _ in range(20):
        detector.asked(replace(BAD, proof="", agent="friendly-scanner"))
    assert not detector.told


@pytest.mark.parametrize("rule", ["failures", "users", "requests"])
def test_rule_of_zero_is_off(rule: str) -> None:
    """Each by itself."""
    detector = _Detector(**ALL)
    for user in "abcdefgh":
        detector.asked(BAD)
        detector.refuses(3, replace(BAD, user=user))
    assert not detector.told
    detector = _Detector(**{**ALL, rule: 3})
    for user in "abc":
        detector.asked(BAD)
        detector.refuses(1, replace(BAD, user=user))
    assert [one[1] for one in detector.rules] == [rule]


# What is told ----------------------------------------------------------------------------------


def test_detected_source_is_told_once() -> None:
    """What is still under way when it is banned adds nothing; let off, it begins anew."""
    detector = _Detector(failures_window=600.0)
    detector.refuses(3)
    detector.asked(replace(BAD, agent="friendly-scanner"))
    assert len(detector.told) == 1
    detector.clock.tick(60)
    detector.refuses(2)
    assert len(detector.told) == 1  # what it had done before is paid for
    detector.refuses(1)
    assert len(detector.told) == 2


def test_full_pipe_is_tried_again() -> None:
    """With the next failure."""
    detector = _Detector()
    detector.room = False
    detector.refuses(5)
    detector.room = True
    detector.refuses(1)
    assert detector.rules == [("192.0.2.1", "failures", 6)]


@pytest.mark.parametrize("source", ["203.0.113.9", "::ffff:203.0.113.9", "no address"])
def test_exempt_source_is_told_of_never(source: str) -> None:
    """However it is written."""
    detector = _Detector()
    detector.refuses(30, replace(BAD, source=source))
    detector.asked(replace(BAD, source=source, agent="friendly-scanner"))
    assert not detector.told


# Proof -----------------------------------------------------------------------------------------


def test_nonce_proves_the_address_and_port_that_it_went_to() -> None:
    """No other address, no other port, no other nonce, and not for long."""
    detector = _Detector()
    detector.challenged("192.0.2.1", 5060, "abc")
    assert detector.proves("192.0.2.1", 5060, "abc")
    assert not detector.proves("192.0.2.1", 5061, "abc")
    assert not detector.proves("192.0.2.2", 5060, "abc")
    assert not detector.proves("192.0.2.1", 5060, "abd")
    assert not detector.proves("192.0.2.1", 5060, "")
    detector.clock.tick(60)
    assert not detector.proves("192.0.2.1", 5060, "abc")


def test_nonce_of_two_addresses_proves_nothing_to_anybody() -> None:
    """Kamailio's own auth module gives the same one to all who ask within a second."""
    detector = _Detector()
    for source in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        detector.challenged(source, 5060, "abc")
    assert not detector.proves("192.0.2.1", 5060, "abc")
    assert not detector.proves("192.0.2.2", 5060, "abc")


def test_server_that_shares_a_nonce_is_not_believed_for_a_day() -> None:
    """Who forges an address may have asked for this second's nonce elsewhere."""
    detector = _Detector()
    for source in ("192.0.2.1", "192.0.2.2"):
        detector.challenged(source, 5060, "abc")
    detector.clock.tick(86_399)
    detector.challenged("192.0.2.1", 5060, "new")
    assert not detector.proves("192.0.2.1", 5060, "new")
    detector.clock.tick(1)
    assert detector.proves("192.0.2.1", 5060, "new")


def test_note_of_a_nonce_cannot_be_pushed_out() -> None:
    """Not by any number of others that go out meanwhile: else it could be given to another."""
    detector = _Detector()
    detector.challenged("192.0.2.1", 5060, "abc")
    for number in range(100_000):
        detector.challenged("192.0.2.3", 5060, f"n{number}")
    detector.challenged("192.0.2.2", 5060, "abc")
    assert not detector.proves("192.0.2.2", 5060, "abc")


@given(
    st.builds(
        Attempt,
        method=st.text(),
        transport=st.text(),
        source=st.text(),
        port=st.integers(0, 65535),
        proof=st.sampled_from(["", "nonce", "connection"]),
        with_credentials=st.booleans(),
        user=st.text(),
        agent=st.text(),
    )
)
def test_attempt_goes_through_a_variable_of_kamailio(attempt: Attempt) -> None:
    """As printable ASCII, whatever the packet said."""
    text = attempt.to_text()
    assert text.isascii()
    assert text.isprintable()
    assert Attempt.from_text(text) == attempt
