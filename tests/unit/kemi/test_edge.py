from collections.abc import Callable
from typing import Any

import pytest
from apiban.address import parse_address
from apiban.kemi import Edge
from apiban.settings.model import EdgeSettings, Upstream
from kamailio_kemi_stubs.fake import FakeKsr

from tests.unit.kemi.parts import LISTED, Worker

PHONE = "198.51.100.7"
FIRST = Upstream(parse_address("192.0.2.10"), 5060, "udp")
SECOND = Upstream(parse_address("2001:db8::10"), 5070, "tcp")


class _Outcomes:
    """Remembers what the edge tells it of; ``wanted`` is whether it wants to see replies."""

    def __init__(self) -> None:
        self.wanted = False
        self.told: list[str] = []

    def request(self, method: str) -> bool:
        self.told.append(method)
        return self.wanted

    def reply(self) -> None:
        self.told.append("reply")

    def answered_outside(self) -> None:
        self.told.append("answered outside")


class _Proxy:
    """An edge over a fake Kamailio in which a new request from outside is routed."""

    def __init__(self, *upstreams: Upstream) -> None:
        self.worker = Worker(LISTED)
        self.log = self.worker.log
        self.ksr: FakeKsr = self.worker.ksr
        self.outcomes = _Outcomes()
        self.edge = Edge(
            self.ksr,
            self.worker.guard,
            EdgeSettings(upstreams),
            self.log,
            self.outcomes,  # type: ignore[arg-type]
        )
        self.returns("tmx.t_precheck_trans", -1)
        self.returns("tm.t_check_trans", -1)
        self.returns("siputils.has_totag", -1)
        self.returns("rr.loose_route", -1)
        self.returns("is_myself_ruri", value=False)
        self.returns("tm.t_is_canceled", -1)

    def returns(self, name: str, value: int | bool) -> None:  # noqa: FBT001 - what KSR returns
        self.ksr.on(name, lambda *_: value)

    def request(self, method: str = "INVITE", source: str = PHONE, **more: Any) -> None:
        """Let a request be routed; ``more`` are variables without their dollar sign."""
        variables = {f"${name}": value for name, value in more.items()}
        self.ksr.variables = {"$rm": method, "$si": source, "$ci": "call-1", **variables}
        self.ksr.calls.clear()
        assert self.edge.request_route() == 1

    def did(self, name: str) -> bool:
        return bool(self.ksr.calls_of(name))

    @property
    def relayed(self) -> bool:
        return self.did("tm.t_relay")

    @property
    def to(self) -> object:
        """Give where the request is sent."""
        return self.ksr.variables.get("$du")

    @property
    def replies(self) -> list[tuple[object, ...]]:
        return self.ksr.calls_of("sl.send_reply")

    @property
    def faults(self) -> int:
        return self.worker.counts[3]


@pytest.fixture
def proxy() -> _Proxy:
    """Give an edge with one upstream."""
    return _Proxy(FIRST)


# The checks before everything ------------------------------------------------------------------


def test_too_many_hops_are_refused(proxy: _Proxy) -> None:
    """A loop ends here."""
    proxy.returns("maxfwd.process_maxfwd", -1)
    proxy.request()
    assert proxy.replies == [(483, "Too Many Hops")]
    assert not proxy.relayed


@pytest.mark.parametrize("result", [-1, 0])
def test_insane_request_is_not_relayed(proxy: _Proxy, result: int) -> None:
    """The sanity module answers by itself."""
    proxy.returns("sanity.sanity_check", result)
    proxy.request()
    assert not proxy.relayed
    assert proxy.replies == []


@pytest.mark.parametrize("known", [1, -1])
def test_cancel_goes_where_its_invite_went(proxy: _Proxy, known: int) -> None:
    """One that belongs to nothing is ignored."""
    proxy.returns("tm.t_check_trans", known)
    proxy.request("CANCEL")
    assert proxy.relayed is (known > 0)
    assert proxy.replies == []


def test_retransmission_is_absorbed(proxy: _Proxy) -> None:
    """While the first is still being processed, and when it was answered."""
    proxy.returns("tmx.t_precheck_trans", 1)
    proxy.request()
    assert not proxy.relayed
    proxy.returns("tmx.t_precheck_trans", -1)
    proxy.returns("tm.t_check_trans", 0)
    proxy.request()
    assert not proxy.relayed
    assert proxy.replies == []


@pytest.mark.parametrize("known", [1, -1])
def test_ack_outside_of_a_dialog_belongs_to_a_transaction_or_to_nobody(
    proxy: _Proxy, known: int
) -> None:
    """It is never answered."""
    proxy.returns("tm.t_check_trans", known)
    proxy.request("ACK")
    assert proxy.relayed is (known > 0)
    assert proxy.replies == []


def test_kdmq_from_outside_is_forbidden(proxy: _Proxy) -> None:
    """The cluster's messages do not come this way."""
    proxy.request("KDMQ")
    assert proxy.replies == [(403, "Forbidden")]
    assert not proxy.relayed


# New requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "REGISTER"])
def test_new_request_from_outside_goes_to_the_upstream(proxy: _Proxy, method: str) -> None:
    """Whatever it asks for, and whatever Route it brought."""
    proxy.request(method, du="sip:203.0.113.66", rd="203.0.113.66")
    assert proxy.relayed
    assert proxy.to == FIRST.uri
    assert proxy.did("rr.record_route") is (method in {"INVITE", "SUBSCRIBE"})
    assert proxy.did("path.add_path_received") is (method == "REGISTER")
    assert proxy.did("nathelper.set_contact_alias") is (method != "REGISTER")
    assert proxy.did("force_rport")


def test_request_without_an_upstream_is_refused() -> None:
    """Nothing to relay to."""
    proxy = _Proxy()
    proxy.request()
    assert proxy.replies[0][0] == 503
    assert not proxy.relayed


def test_new_request_from_an_upstream_goes_where_it_asks(proxy: _Proxy) -> None:
    """To the phone, over the way that its Path or its contact's alias names."""
    proxy.request(source="192.0.2.10", rd="198.51.100.7")
    assert proxy.relayed
    assert proxy.to is None
    assert proxy.did("rr.loose_route")
    assert proxy.did("nathelper.handle_ruri_alias")
    assert proxy.ksr.calls_of("tm.t_on_reply") == [("ksr_onreply_outside",)]


@pytest.mark.parametrize("spelling", ["2001:DB8::10", "[2001:db8::10]", "2001:db8:0:0::10"])
def test_upstream_is_known_in_every_spelling(spelling: str) -> None:
    """Addresses are compared, and not their texts."""
    proxy = _Proxy(FIRST, SECOND)
    proxy.request(source=spelling)
    assert proxy.to is None
    assert proxy.relayed


def test_mapped_upstream_is_known(proxy: _Proxy) -> None:
    """A dual-stack listener shows it so."""
    proxy.request(source="::ffff:192.0.2.10")
    assert proxy.to is None
    assert proxy.relayed


def test_request_of_an_upstream_to_ourselves_goes_to_an_upstream(proxy: _Proxy) -> None:
    """It would loop else."""
    proxy.returns("is_myself_ruri", value=True)
    proxy.request(source="192.0.2.10")
    assert proxy.to == FIRST.uri


def test_relay_that_fails_is_answered(proxy: _Proxy) -> None:
    """The caller hears of it at once."""
    proxy.returns("tm.t_relay", -1)
    proxy.request()
    assert proxy.did("sl.sl_reply_error")


# Within a dialog -------------------------------------------------------------------------------


def _in_dialog(proxy: _Proxy, routed: int = 1) -> None:
    proxy.returns("siputils.has_totag", 1)
    proxy.returns("rr.loose_route", routed)


@pytest.mark.parametrize("method", ["BYE", "INVITE", "ACK"])
def test_dialog_of_an_upstream_is_relayed(proxy: _Proxy, method: str) -> None:
    """From outside to the upstream, whether the Route or the request's URI names it."""
    _in_dialog(proxy)
    for where in ({"rd": "192.0.2.10"}, {"du": "sip:192.0.2.10", "dd": "192.0.2.10", "rd": "x.y"}):
        proxy.request(method, **where)
        assert proxy.relayed
        assert proxy.did("nathelper.set_contact_alias")
    assert proxy.replies == []


@pytest.mark.parametrize(
    "where",
    [
        pytest.param({"rd": "203.0.113.66"}, id="request-uri"),
        pytest.param({"rd": "example.net"}, id="name"),
        pytest.param({"rd": None}, id="nothing"),
        pytest.param({"dd": "203.0.113.66", "rd": "192.0.2.10"}, id="route"),
        pytest.param({"rd": "192.0.2.10.example.net"}, id="looks-like-it"),
    ],
)
@pytest.mark.parametrize("method", ["BYE", "INVITE", "MESSAGE"])
def test_open_relay_is_refused(proxy: _Proxy, method: str, where: dict[str, Any]) -> None:
    """Whoever has a To-tag and a Route to us still gets nowhere but to an upstream."""
    _in_dialog(proxy)
    proxy.request(method, **where)
    assert not proxy.relayed
    assert [code for code, _ in proxy.replies] == [403]
    assert proxy.log.names() == ["edge-refused"]


def test_alias_of_a_request_from_outside_is_checked_too(proxy: _Proxy) -> None:
    """The alias in a URI names the next hop as a Route does."""
    _in_dialog(proxy)

    def handle_alias() -> int:
        proxy.ksr.variables.update({"$du": "sip:203.0.113.66", "$dd": "203.0.113.66"})
        return 1

    proxy.ksr.on("nathelper.handle_ruri_alias", handle_alias)
    proxy.request("BYE", rd="192.0.2.10")
    assert not proxy.relayed


def test_refused_ack_is_not_answered(proxy: _Proxy) -> None:
    """No ACK ever is."""
    _in_dialog(proxy)
    proxy.request("ACK", rd="203.0.113.66")
    assert proxy.replies == []
    assert not proxy.relayed


def test_flood_of_refused_requests_is_a_handful_of_lines(proxy: _Proxy) -> None:
    """Nobody fills the disk by asking to be relayed."""
    _in_dialog(proxy)
    for _ in range(1000):
        proxy.request("BYE", rd="203.0.113.66")
    assert len(proxy.log.fields("edge-refused")) <= 50


def test_dialog_from_an_upstream_goes_anywhere(proxy: _Proxy) -> None:
    """Upstreams are trusted; the phone's real address comes from the alias."""
    _in_dialog(proxy)
    proxy.request("BYE", source="192.0.2.10", rd="198.51.100.7")
    assert proxy.relayed
    assert proxy.did("nathelper.handle_ruri_alias")
    assert not proxy.did("tm.t_on_reply")
    proxy.request("INVITE", source="192.0.2.10", rd="198.51.100.7", du="sip:198.51.100.7")
    assert proxy.did("tm.t_on_reply")
    assert not proxy.did("nathelper.handle_ruri_alias")


@pytest.mark.parametrize(("method", "codes"), [("BYE", [404]), ("ACK", [])])
def test_dialog_without_a_route_is_not_ours(proxy: _Proxy, method: str, codes: list[int]) -> None:
    """It did not come through here."""
    _in_dialog(proxy, routed=-1)
    proxy.request(method)
    assert [code for code, _ in proxy.replies] == codes
    assert not proxy.relayed


def test_ack_without_a_route_follows_its_transaction(proxy: _Proxy) -> None:
    """The ACK of a refused INVITE has a To-tag and no Route."""
    _in_dialog(proxy, routed=-1)
    proxy.returns("tm.t_check_trans", 1)
    proxy.request("ACK")
    assert proxy.relayed


# Failover --------------------------------------------------------------------------------------


def _fails(proxy: _Proxy) -> object:
    """Let the upstream that was tried fail; give the next one, or None."""
    proxy.ksr.calls.clear()
    proxy.edge.failure_route()
    return proxy.to if proxy.relayed else None


def test_each_upstream_is_tried_once() -> None:
    """Beginning with the one of the Call-ID."""
    proxy = _Proxy(FIRST, SECOND)
    proxy.request(ci="call-1")
    first = proxy.to
    assert proxy.ksr.calls_of("tm.t_on_failure") == [("ksr_failure_upstream",)]
    second = _fails(proxy)
    assert not proxy.did("tm.t_on_failure")
    assert {first, second} == {FIRST.uri, SECOND.uri}
    assert _fails(proxy) is None


def test_messages_of_a_call_go_one_way_and_calls_are_spread() -> None:
    """The Call-ID decides."""
    proxy = _Proxy(FIRST, SECOND)
    chosen: dict[str, set[object]] = {}
    for call in [f"call-{number}" for number in range(50)] * 2:
        proxy.request(ci=call)
        chosen.setdefault(call, set()).add(proxy.to)
    assert {len(ways) for ways in chosen.values()} == {1}
    assert {way for ways in chosen.values() for way in ways} == {FIRST.uri, SECOND.uri}


@pytest.mark.parametrize("call", [None, "", "\udcff", "ü"])
def test_call_without_a_usable_id_is_relayed(call: str | None) -> None:
    """It goes to some upstream."""
    proxy = _Proxy(FIRST, SECOND)
    proxy.request(ci=call)
    assert proxy.to in {FIRST.uri, SECOND.uri}
    assert proxy.faults == 0


def test_single_upstream_has_no_failover(proxy: _Proxy) -> None:
    """Its answer is the answer."""
    proxy.request()
    assert not proxy.did("tm.t_on_failure")
    assert _fails(proxy) is None


def test_cancelled_call_is_not_tried_again() -> None:
    """The caller has hung up."""
    proxy = _Proxy(FIRST, SECOND)
    proxy.request()
    proxy.returns("tm.t_is_canceled", 1)
    assert _fails(proxy) is None


def test_answer_that_is_no_failure_of_the_upstream_is_final() -> None:
    """A callee who is busy is busy at the next one too."""
    proxy = _Proxy(FIRST, SECOND)
    proxy.request()
    proxy.returns("tm.t_check_status", -1)
    assert _fails(proxy) is None
    assert proxy.ksr.calls_of("tm.t_check_status") == [("408|503",)]


def test_reply_from_outside_gets_its_alias(proxy: _Proxy) -> None:
    """The phone's answer names the address that it really has, and is learned from."""
    assert proxy.edge.reply_route() == 1
    assert proxy.did("nathelper.set_contact_alias")
    assert proxy.outcomes.told == ["answered outside"]


def test_reply_of_an_upstream_is_learned_from_when_that_is_wanted(proxy: _Proxy) -> None:
    """Only requests from outside arm the reply route, and only then."""
    proxy.request("REGISTER")
    assert not proxy.did("tm.t_on_reply")
    proxy.outcomes.wanted = True
    for method in ("REGISTER", "OPTIONS"):
        proxy.request(method)
        assert proxy.ksr.calls_of("tm.t_on_reply") == [("ksr_onreply_upstream",)]
    proxy.request("ACK")
    proxy.request("INVITE", source="192.0.2.10")
    assert proxy.outcomes.told == ["REGISTER", "REGISTER", "OPTIONS"]
    assert proxy.edge.upstream_reply_route() == 1
    assert proxy.outcomes.told[-1] == "reply"


def test_new_settings_are_taken_where_no_message_comes_to_the_guard(proxy: _Proxy) -> None:
    """As when native code answers for every source: requests and replies look for them too."""
    for route in (proxy.request, proxy.edge.upstream_reply_route, proxy.edge.reply_route):
        before = proxy.worker.settings_read
        proxy.worker.board.announce_settings()
        route()
        assert proxy.worker.settings_read == before + 1


# Faults ----------------------------------------------------------------------------------------


def _raise(*_: object) -> int:
    raise RuntimeError("a fault of ours")


def _break(name: str) -> Callable[[_Proxy], None]:
    return lambda proxy: proxy.ksr.on(name, _raise)


@pytest.mark.parametrize(
    "name", ["maxfwd.process_maxfwd", "siputils.has_totag", "rr.record_route", "force_rport"]
)
def test_fault_sends_the_request_to_the_first_upstream(name: str) -> None:
    """Calls first; it is counted and said."""
    proxy = _Proxy(FIRST, SECOND)
    _break(name)(proxy)
    proxy.request()
    assert proxy.relayed
    assert proxy.to == FIRST.uri
    assert proxy.faults == 1
    assert proxy.log.names() == ["fault"]


def test_fault_without_an_upstream_is_counted() -> None:
    """There is nowhere to send it."""
    proxy = _Proxy()
    _break("maxfwd.process_maxfwd")(proxy)
    proxy.request()
    assert proxy.faults == 1
    assert not proxy.relayed


def test_new_settings_are_routed_by_at_once(proxy: _Proxy) -> None:
    """Other upstreams, and other addresses that are inside."""
    proxy.edge.use(EdgeSettings((SECOND,)))
    proxy.request()
    assert proxy.to == SECOND.uri
    proxy.request(source="192.0.2.10")
    assert proxy.to == SECOND.uri
    proxy.request(source="2001:db8::10")
    assert proxy.to is None
