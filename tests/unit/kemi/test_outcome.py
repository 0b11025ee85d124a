"""What is learned from requests and their replies, over a fake Kamailio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apiban.kemi.calls import Calls
from apiban.kemi.memory import Memory, Pages
from apiban.kemi.outcome import Outcomes
from apiban.settings import Mode, Settings, load_settings
from apiban.settings.model import CallSettings

from tests.unit.kemi.parts import LISTED, UNLISTED, Worker

NONCE = "0123456789abcdef"


def _settings(
    *, detect: bool = False, grace: float = 0.0, failures: int = 3, users: int = 0
) -> Settings:
    settings = load_settings(Path("/nonexistent.toml"), {})
    return replace(
        settings,
        calls=CallSettings(grace),
        detect=replace(settings.detect, enabled=detect, failures=failures, users=users),
    )


class _Learner:
    """A worker's outcomes; requests and replies are what the test says."""

    def __init__(self, *, mode: Mode = Mode.ENFORCE, **settings: Any) -> None:
        self.worker = Worker(LISTED, mode=mode)
        self.ksr, self.clock = self.worker.ksr, self.worker.clock
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.faults: list[BaseException] = []
        memory = Memory(Pages(), uptime=self.clock.uptime)
        self.calls = Calls(self.ksr, memory, grace=0.0, uptime=self.clock.uptime)
        self.outcomes = Outcomes(
            self.ksr,
            gate=self.worker.gate,
            memory=memory,
            calls=self.calls,
            clock=self.clock,
            settings=_settings(**settings),
            tell=self._tell,
            fault=self.faults.append,
        )
        self.outcomes.use(_settings(**settings))

    def _tell(self, kind: str, fields: Mapping[str, Any]) -> bool:
        self.told.append((kind, fields))
        return True

    def request(
        self,
        method: str = "REGISTER",
        source: str = UNLISTED,
        *,
        nonce: str = "",
        transport: str = "udp",
        port: int = 5062,
        **more: Any,
    ) -> bool:
        """Let a request come; with a nonce it has credentials."""
        self.ksr.variables = {
            "$rm": method,
            "$si": source,
            "$sp": port,
            "$proto": transport,
            "$ci": "call-1",
            "$tU": "100",
            "$rU": "200",
            "$ua": "telephone",
        }
        if nonce:
            text = f'Digest username="bob", realm="r", nonce="{nonce}", response="x"'
            self.ksr.variables["$hdr(Authorization)"] = text
        self.ksr.variables.update({f"${name}": value for name, value in more.items()})
        return self.outcomes.request(method)

    def reply(self, status: int, *challenges: str, **more: Any) -> None:
        """Let the reply to the last request come; ``challenges`` are of WWW-Authenticate."""
        attempt = self.ksr.variables.get("$avp(apiban_attempt)")
        self.ksr.variables = {
            "$avp(apiban_attempt)": attempt,
            "$rs": status,
            "$ci": "call-1",
            "$si": "192.0.2.99",
        }
        for number, text in enumerate(challenges):
            self.ksr.variables[f"$(hdr(WWW-Authenticate)[{number}])"] = text
        self.ksr.variables.update(more)
        self.outcomes.reply()
        assert not self.faults

    def fails(self, source: str = UNLISTED, **more: Any) -> None:
        """Let a source register with a nonce that just went out to it, and be refused."""
        self.request(source=source, **more)
        self.reply(401, f'Digest realm="r", nonce="{NONCE}"')
        self.request(source=source, nonce=NONCE, **more)
        self.reply(401, 'Digest realm="r", nonce="next"')

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]


def test_nothing_is_looked_at_when_nothing_is_learned() -> None:
    """No reply comes here, and no variable is read."""
    learner = _Learner()
    for method in ("REGISTER", "INVITE", "OPTIONS"):
        assert not learner.request(method)
    assert not learner.ksr.calls


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"grace": 5.0}, {"INVITE"}),
        ({"mode": Mode.SHADOW}, {"INVITE", "REGISTER"}),
        ({"detect": True}, {"INVITE", "REGISTER", "OPTIONS"}),
    ],
)
def test_only_replies_that_tell_something_are_wanted(
    options: dict[str, Any], wanted: set[str]
) -> None:
    """By what is turned on."""
    learner = _Learner(**options)
    assert {one for one in ("INVITE", "REGISTER", "OPTIONS") if learner.request(one)} == wanted


def test_answered_call_is_remembered() -> None:
    """Of the caller, when it was answered; a provisional or negative reply is none."""
    learner = _Learner(grace=30.0)
    for status, known in ((183, False), (486, False), (200, True)):
        learner.request("INVITE")
        learner.reply(status)
        assert learner.calls.knows(UNLISTED) is known
    learner.ksr.variables = {"$ci": "call-1", "$tt": "1"}
    assert learner.calls.spares(UNLISTED, "$si")


def test_callee_outside_is_remembered() -> None:
    """The phone that answered a call from inside."""
    learner = _Learner(grace=30.0)
    for status, known in ((180, False), (200, True)):
        learner.ksr.variables = {"$rs": status, "$si": UNLISTED, "$ci": "call-1"}
        learner.outcomes.answered_outside()
        assert learner.calls.knows(UNLISTED) is known


def test_native_dialog_names_both_parties() -> None:
    """The caller by the dialog's variable, the callee by its answer."""
    learner = _Learner(grace=30.0)
    learner.ksr.variables = {"$dlg(callid)": "call-1", "$si": "192.0.2.9"}
    learner.outcomes.answered("192.0.2.8")
    assert learner.calls.knows("192.0.2.8")
    assert learner.calls.knows("192.0.2.9")


def _is_answered(learner: _Learner, way: str, source: str, call: str) -> None:
    """Let an INVITE be answered, in one of the ways in which a party of a call is learned."""
    if way == "caller":
        learner.request("INVITE", source)
        learner.reply(200, **{"$ci": call})
    elif way == "callee":
        learner.ksr.variables = {"$rs": 200, "$si": source, "$ci": call}
        learner.outcomes.answered_outside()
    else:
        learner.ksr.variables = {"$dlg(callid)": call, "$si": "192.0.2.9"}
        learner.outcomes.answered(source)
    assert not learner.faults


@pytest.mark.parametrize("call", ["call-1", "call-2"])
@pytest.mark.parametrize("way", ["caller", "callee", "native"])
def test_listed_party_gains_neither_calls_nor_time(way: str, call: str) -> None:
    """However often a re-INVITE of its call, or of another, is answered."""
    learner = _Learner(grace=30.0)
    _is_answered(learner, way, UNLISTED, "call-1")
    learner.worker.publish(UNLISTED)
    learner.worker.guard.keep_up()
    assert learner.calls.knows(UNLISTED)
    for _ in range(5):
        learner.clock.tick(6)
        _is_answered(learner, way, UNLISTED, call)
        assert UNLISTED not in learner.worker.gate.listed  # its call is spared as before
    assert not learner.calls.knows(UNLISTED)
    learner.ksr.variables = {"$ci": call, "$tt": "1"}
    assert learner.calls.spares(UNLISTED, "$si") is (call == "call-1")


@pytest.mark.parametrize("way", ["caller", "callee", "native"])
def test_party_that_moved_is_remembered_at_its_new_address(way: str) -> None:
    """By a re-INVITE from there, though the call is known of its old one."""
    learner = _Learner(grace=30.0)
    for source in (UNLISTED, "192.0.2.50"):
        _is_answered(learner, way, source, "call-1")
        assert learner.calls.knows(source)


def test_calls_of_shadow_are_spared_by_enforce() -> None:
    """There a listed source may begin calls: none of its messages is dropped."""
    learner = _Learner(grace=30.0, mode=Mode.SHADOW)
    _is_answered(learner, "caller", LISTED, "call-1")
    assert learner.calls.knows(LISTED)


# Shadow ----------------------------------------------------------------------------------------


def test_good_source_that_is_listed_is_told_once_an_hour() -> None:
    """For registrations and calls apart."""
    learner = _Learner(mode=Mode.SHADOW)
    for method in ("REGISTER", "INVITE", "REGISTER"):
        learner.request(method, LISTED)
        learner.reply(200)
    told = {"source": LISTED, "at": learner.clock.now()}
    assert learner.told == [
        ("good", {**told, "what": "registered"}),
        ("good", {**told, "what": "called"}),
    ]
    learner.clock.tick(3600)
    learner.request("REGISTER", LISTED)
    learner.reply(200)
    assert learner.kinds == ["good"] * 3


@pytest.mark.parametrize(
    ("mode", "source", "status"),
    [
        (Mode.SHADOW, UNLISTED, 200),
        (Mode.SHADOW, LISTED, 401),
        (Mode.SHADOW, LISTED, 100),
        (Mode.ENFORCE, LISTED, 200),
        (Mode.OFF, LISTED, 200),
    ],
)
def test_others_are_not_told_of(mode: Mode, source: str, status: int) -> None:
    """Who is not listed, who did not succeed, and nobody in another mode."""
    learner = _Learner(mode=mode, detect=True)
    learner.request("REGISTER", source)
    learner.reply(status)
    assert "good" not in learner.kinds


# The detector ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("transport", "proof"), [("udp", "nonce"), ("tcp", "connection")])
def test_failures_are_detected(transport: str, proof: str) -> None:
    """Over UDP by the nonces that came back."""
    learner = _Learner(detect=True)
    for _ in range(3):
        learner.fails(transport=transport)
    (kind, fields), *rest = learner.told
    assert not rest
    assert kind == "detected"
    assert (fields["rule"], fields["proof"], fields["user"]) == ("failures", proof, "bob")
    assert fields["transport"] == transport


def test_nonce_counts_from_where_it_went_to_alone() -> None:
    """Another port, another address, an invented one: nobody knows who that was."""
    learner = _Learner(detect=True)
    learner.request()
    learner.reply(401, f'Digest realm="r", nonce="{NONCE}"')
    for more in ({"port": 5063}, {"source": "192.0.2.3"}, {"nonce": "invented"}):
        for _ in range(5):
            learner.request(**{"nonce": NONCE, **more})
            learner.reply(401)
    assert not learner.told


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE"])
def test_nonce_that_a_phone_may_have_chosen_proves_nothing(method: str) -> None:
    """A forger may call a phone of his own in another's name, and challenge that himself."""
    learner = _Learner(detect=True)
    for _ in range(5):
        learner.request(method)
        learner.reply(407, f'Digest realm="r", nonce="{NONCE}"')
        learner.request(method, nonce=NONCE)
        learner.reply(407)
    assert not learner.told


def test_nonce_that_also_went_out_over_tcp_proves_nothing() -> None:
    """The forger may ask for it over another transport."""
    learner = _Learner(detect=True)
    learner.request(source="192.0.2.66", transport="tcp")
    learner.reply(401, f'Digest realm="r", nonce="{NONCE}"')
    for _ in range(5):
        learner.fails()
    assert not learner.told


def test_second_challenge_of_a_reply_counts_too() -> None:
    """A server that offers another algorithm first."""
    learner = _Learner(detect=True)
    for _ in range(3):
        learner.request()
        learner.reply(401, 'Digest nonce="other", algorithm=SHA-256', f'Digest nonce="{NONCE}"')
        learner.request(nonce=NONCE)
        learner.reply(403)
    assert learner.kinds == ["detected"]


def test_stale_challenge_is_no_failure() -> None:
    """The phone will be right with the next nonce."""
    learner = _Learner(detect=True)
    for _ in range(5):
        learner.request(nonce=NONCE, transport="tls")
        learner.reply(401, 'Digest nonce="next", stale=TRUE')
    assert not learner.told


def test_success_spares_an_office() -> None:
    """After a registration one handset may fail as often as it likes."""
    learner = _Learner(detect=True)
    learner.request(nonce=NONCE)
    learner.reply(200)
    for _ in range(6):
        learner.fails()
    assert not learner.told


def test_user_is_whose_credentials_came_else_who_is_asked_for() -> None:
    """The user of the To in a REGISTER, of the request URI elsewhere."""
    learner = _Learner(detect=True, failures=0, users=1)
    learner.fails()
    learner.clock.tick(100)
    learner.request("OPTIONS", "192.0.2.5", transport="tcp")
    learner.reply(404)
    learner.request("REGISTER", "192.0.2.6", transport="ws")
    learner.reply(404)
    assert [fields["user"] for _, fields in learner.told] == ["bob", "200", "100"]
    assert [fields["transport"] for _, fields in learner.told] == ["udp", "tcp", "tcp"]


def test_scanner_is_detected_by_its_request() -> None:
    """Over TCP, before any reply."""
    learner = _Learner(detect=True)
    learner.request("OPTIONS", ua="friendly-scanner")
    assert not learner.told
    learner.request("OPTIONS", transport="tcp", ua="Friendly-Scanner")
    assert learner.kinds == ["detected"]


def test_bytes_that_are_no_text_are_no_header() -> None:
    """Kamailio's variables raise for them; the request counts all the same."""
    learner = _Learner(detect=True)
    for _ in range(3):
        learner.request(nonce=NONCE, transport="tcp", ua=b"\xff")
        learner.ksr.variables["$rU"] = b"\xff"
        learner.reply(401)
    assert learner.kinds == ["detected"]
    assert learner.told[0][1]["agent"] == ""


def test_new_settings_apply() -> None:
    """To requests that come after them."""
    learner = _Learner()
    learner.outcomes.use(_settings(detect=True))
    assert learner.request("OPTIONS")
    learner.outcomes.use(_settings(grace=3.0))
    assert not learner.request("OPTIONS")
    assert learner.request("INVITE")


# Native ----------------------------------------------------------------------------------------


def test_credentials_that_kamailio_judged_itself() -> None:
    """Over UDP only those whose nonce it made for just this address."""
    learner = _Learner(detect=True)
    for what, counted in (("failed", False), ("failed-bound", True)):
        for _ in range(3):
            learner.request(nonce=NONCE)
            learner.outcomes.learn(what)
        assert bool(learner.told) is counted
    assert not learner.faults


def test_registration_that_kamailio_took_itself() -> None:
    """It spares an office, and is good in mode shadow."""
    learner = _Learner(detect=True, mode=Mode.SHADOW)
    learner.request("REGISTER", LISTED, nonce=NONCE)
    learner.outcomes.learn("registered")
    assert learner.kinds == ["good"]
    for _ in range(5):
        learner.request("REGISTER", LISTED, nonce=NONCE, transport="tcp")
        learner.outcomes.learn("failed")
    assert learner.kinds == ["good"]


def test_native_relay_is_learned_from_as_the_edge_is() -> None:
    """By the same steps, from its routes."""
    learner = _Learner(detect=True)
    for _ in range(3):
        learner.request(nonce=NONCE, transport="tcp")
        learner.outcomes.learn("request")
        learner.ksr.variables["$rs"] = 401
        learner.outcomes.learn("reply")
    assert learner.kinds == ["detected"]


@pytest.mark.parametrize(
    ("broken", "steps"),
    [
        ("pv.sets", ("request",)),
        ("pv.get", ("request", "reply", "failed", "registered")),
    ],
)
def test_fault_changes_nothing_for_the_call(broken: str, steps: tuple[str, ...]) -> None:
    """It is counted, and the reply is not asked for."""

    def raises(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    learner = _Learner(detect=True, grace=3.0)
    learner.ksr.on(broken, raises)
    assert not learner.outcomes.request("INVITE")
    for step in steps:
        learner.outcomes.learn(step)
    assert len(learner.faults) >= len(steps)


def test_fault_in_what_the_dialog_tells() -> None:
    """Here too, and from outside."""

    def raises(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    learner = _Learner(grace=3.0)
    learner.ksr.on("pv.get", raises)
    learner.outcomes.answered("192.0.2.8")
    learner.outcomes.answered_outside()
    assert len(learner.faults) == 2
