"""Prometheus scrapes a real Kamailio: the numbers are exact, and nobody else is served."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.firewall.report import report_path as firewall_path
from apiban.firewall.report import write_report as write_firewall
from apiban.settings import Mode, load_settings
from apiban.store import DETECTOR, LOCAL, FeedState, Store
from apiban.sync.drift import Drift
from apiban.sync.own import own_addresses
from apiban.sync.report import read_report, report_path
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_native import INCLUDE, STOCK, configuration
from tests.support.honeypot import Tool, nonce_in, running
from tests.support.log import MemoryLog
from tests.support.node import HOST, NodeUnderTest, free_port, wait_for
from tests.support.prom import declared, watched
from tests.support.reports import firewall_report
from tests.support.sip import Sender

pytestmark = pytest.mark.kamailio

LISTED, ALSO_LISTED, GOOD = "127.0.1.5", "127.0.1.6", "127.0.2.1"
BANNED, DETECTED = "127.0.1.50", "127.0.1.60"
METRICS = INCLUDE.with_name("apiban-metrics.cfg")
BUFFER = 131072  # the page's bound in apiban-metrics.cfg


class Scraper:
    """Asks a Kamailio for its metrics, over a connection for each request as SIP's first."""

    def __init__(self) -> None:
        self.port = free_port()

    @property
    def options(self) -> dict[str, Any]:
        """Give what Kamailio is started with."""
        return {
            "defines": ["WITH_METRICS", f"APIBAN_METRICS_PORT={self.port}"],
            "options": [
                *("-x", "tlsf"),
                *("-l", f"tcp:{HOST}:{self.port}", "-l", f"udp:{HOST}:{self.port}"),
            ],
        }

    def ask(
        self, path: str = "/metrics", method: str = "GET", source: str = GOOD, port: int = 0
    ) -> tuple[int, str]:
        """Give the status and the body; (0, "") when the connection was closed without a byte."""
        at = http.client.HTTPConnection(HOST, port or self.port, 5, source_address=(source, 0))
        try:
            at.request(method, path)
            answer = at.getresponse()
            return answer.status, answer.read().decode()
        except (http.client.RemoteDisconnected, ConnectionError):
            return 0, ""
        finally:
            at.close()

    def numbers(self) -> dict[str, float]:
        """Give the page's numbers, those with a label as ``name:value of the label``."""
        status, page = self.ask()
        assert status == 200
        return {
            ":".join((sample.name, *sample.labels.values())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def number(self, name: str) -> float | None:
        """Give one of them; None when it is not there (yet)."""
        return self.numbers().get(name)


@pytest.fixture
def scraper() -> Scraper:
    """Give a scraper for a node that is not made yet."""
    return Scraper()


@pytest.fixture
def node(make_node: Callable[..., NodeUnderTest], scraper: Scraper) -> NodeUnderTest:
    """Give a started node with metrics that lists two sources."""
    return make_node((LISTED, ALSO_LISTED), **scraper.options).start()


def flood(node: NodeUnderTest, number: int) -> None:
    """Send so many packets of listed sources, from many ports; wait until all are counted."""
    before = node.board.total().dropped
    senders = [Sender(source, node.target) for source in (LISTED, ALSO_LISTED) for _ in range(20)]
    try:
        for sent in range(number):
            senders[sent % len(senders)].send()
            if sent % 100 == 99:  # no faster than they are taken: none may be lost
                wait_for(lambda n=sent: node.board.total().dropped - before > n - 200, "the drops")
        wait_for(lambda: node.board.total().dropped - before == number, "all drops")
    finally:
        for sender in senders:
            sender.socket.close()


# The numbers -----------------------------------------------------------------------------------


def test_scraped_number_is_the_boards(node: NodeUnderTest, scraper: Scraper) -> None:
    """Exactly, after a flood that several workers dropped."""
    flood(node, 3000)
    wait_for(
        lambda: scraper.number("apiban_dropped_packets_total") == 3000, "the number of all drops", 5
    )
    time.sleep(1.5)  # another push or two: nothing is given twice
    numbers, total = scraper.numbers(), node.board.total()
    assert numbers["apiban_dropped_packets_total"] == total.dropped == 3000
    assert numbers["apiban_would_drop_packets_total"] == 0
    assert numbers["apiban_faults_total"] == total.faults == 0
    assert numbers["apiban_workers"] == sum(slot.rank > 0 for slot in node.board.slots()) >= 8
    assert numbers["apiban_workers_behind"] == 0


def test_passed_packets_are_counted(node: NodeUnderTest, scraper: Scraper) -> None:
    """A scrape is one of them."""
    for _ in range(10):
        assert node.passes(GOOD)
    passed = node.board.total().passed
    wait_for(
        lambda: (scraper.number("apiban_passed_packets_total") or 0) >= passed, "the passed ones", 5
    )
    assert (scraper.number("apiban_passed_packets_total") or 0) <= node.board.total().passed


def test_counters_go_on_over_a_reload(node: NodeUnderTest, scraper: Scraper) -> None:
    """And never go back."""
    flood(node, 500)
    wait_for(lambda: scraper.number("apiban_dropped_packets_total") == 500, "the drops", 5)
    node.kamailio.rpc("app_python.reload")
    flood(node, 300)
    seen = [scraper.number("apiban_dropped_packets_total")]
    wait_for(
        lambda: seen.append(scraper.number("apiban_dropped_packets_total")) or seen[-1] == 800,
        "the drops of before and after",
    )
    time.sleep(1.5)
    seen.append(scraper.number("apiban_dropped_packets_total"))
    assert seen[-1] == 800 == node.board.total().dropped
    assert seen == sorted(seen)  # type: ignore[type-var]
    assert node.events("reload")


def test_counters_begin_anew_with_kamailio(node: NodeUnderTest, scraper: Scraper) -> None:
    """As Prometheus expects of a restart."""
    flood(node, 200)
    wait_for(lambda: scraper.number("apiban_dropped_packets_total") == 200, "the drops", 5)
    node.restart()
    wait_for(lambda: scraper.number("apiban_dropped_packets_total") is not None, "a first push", 5)
    assert scraper.number("apiban_dropped_packets_total") == 0
    flood(node, 50)
    wait_for(lambda: scraper.number("apiban_dropped_packets_total") == 50, "the new drops", 5)


def test_list_and_mode(node: NodeUnderTest, scraper: Scraper) -> None:
    """They follow what the sync publishes."""
    # The two addresses are neighbours, so they are one range.
    wait_for(lambda: scraper.number("apiban_list_ranges:ipv4") == 1, "the range", 5)
    generation = scraper.number("apiban_list_generation")
    assert generation == node.board.generation
    assert abs((scraper.number("apiban_list_timestamp_seconds") or 0) - time.time()) < 60
    assert scraper.number("apiban_mode:enforce") == 1
    node.write_settings(mode="shadow")
    wait_for(lambda: scraper.number("apiban_mode:shadow") == 1, "the new mode", 5)
    numbers = scraper.numbers()
    assert numbers["apiban_mode:enforce"] == numbers["apiban_mode:off"] == 0
    assert numbers["apiban_list_generation"] > (generation or 0)
    assert node.passes(LISTED)
    wait_for(lambda: scraper.number("apiban_would_drop_packets_total") == 1, "what passed", 5)


def test_sync(node: NodeUnderTest, scraper: Scraper) -> None:
    """It tells when the feed last answered in full, and stays when the feed is gone."""
    name = "apiban_sync_last_success_timestamp_seconds"
    wait_for(lambda: abs((scraper.number(name) or 0) - time.time()) < 15, "a fresh time")
    first = scraper.number(name)
    wait_for(lambda: scraper.number(name) != first, "a later time", 20)
    assert scraper.number("apiban_sync_running") == 1
    assert scraper.number("apiban_sync_last_full_pass_timestamp_seconds")
    assert scraper.number("apiban_sync_held_passes") == 0


def test_drops_by_origin(node: NodeUnderTest, scraper: Scraper) -> None:
    """The feed's, the operator's and the detector's bans are told apart, and are all drops."""
    now = time.time()
    with Store(node.folder / "state" / "store.db") as store:
        for source, host in ((LOCAL, BANNED), (DETECTOR, DETECTED)):
            store.ban([parse_network(host)], source=source, reason="", expires=now + 3600, now=now)
    wait_for(lambda: node.board.generation > 1 and node.is_dropped(DETECTED), "the bans", 5)
    flood(node, 300)
    for source, number in ((BANNED, 20), (DETECTED, 9)):
        assert all(node.is_dropped(source) for _ in range(number))
    total = node.board.total()
    name = "apiban_dropped_packets_by_origin_total"
    wait_for(lambda: scraper.number("apiban_dropped_packets_total") == total.dropped, "all", 5)
    numbers = scraper.numbers()
    assert numbers[f"{name}:feed"] == 300
    assert numbers[f"{name}:local"] == 20
    assert numbers[f"{name}:detector"] == total.dropped - 320 >= 10
    wait_for(lambda: scraper.number("apiban_list_entries:local") == 1, "the entries", 5)
    assert scraper.number("apiban_list_entries:apiban") == 2
    assert scraper.number("apiban_list_entries:detector") == 1


def test_operators_mode_and_feed(node: NodeUnderTest, scraper: Scraper) -> None:
    """What the command line set shows as such, and how the feed answers."""
    wait_for(lambda: scraper.number("apiban_feed_state:ok") == 1, "the feed's state", 5)
    modes = [f"apiban_mode_override:{mode}" for mode in ("enforce", "shadow", "off")]
    assert [scraper.number(mode) for mode in modes] == [0, 0, 0]
    assert scraper.number("apiban_sync_requests_limit") == 1000
    assert 0 < (scraper.number("apiban_sync_requests_left") or 0) < 1000
    assert abs((scraper.number("apiban_sync_report_timestamp_seconds") or 0) - time.time()) < 70
    with Store(node.folder / "state" / "store.db") as store:
        store.set_mode(Mode.OFF, now=time.time())
    wait_for(lambda: scraper.number("apiban_mode_override:off") == 1, "the operator's mode", 5)
    wait_for(lambda: scraper.number("apiban_mode:off") == 1, "the mode in force", 5)
    node.api.stop()
    wait_for(lambda: scraper.number("apiban_feed_state:outage") == 1, "the outage", 10)
    assert scraper.number("apiban_feed_state:ok") == 0


# Drift -----------------------------------------------------------------------------------------


class FastClock:
    """Time that goes thirty times as fast, so that a minute is two seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now(self) -> float:
        """Give the real time: entries end by it."""
        return time.time()

    def uptime(self) -> float:
        """Give the fast one."""
        return (time.monotonic() - self._began) * 30

    def boot(self) -> str:
        """Name the boot."""
        return "this one"


class SyncSeen:
    """The sync as the check sees it, when no pass and no page is held."""

    held_back = ""

    def __init__(self) -> None:
        self.state = FeedState("this feed", pass_ended=1.0)


class Watcher:
    """The check over a running node, in a hurry."""

    def __init__(self, node: NodeUnderTest) -> None:
        self.node = node
        self.log = MemoryLog()
        self.store = Store(node.folder / "state" / "store.db")
        self.drift = Drift(board=node.board, clock=FastClock(), log=self.log)

    def look(self, seconds: float) -> tuple[str, ...]:
        """Look for a while, with the settings as they are; give what an alarm is on for."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            settings = load_settings(self.node.settings_file, {})
            self.drift.look(self.store, SyncSeen(), settings, own_addresses())  # type: ignore[arg-type]
            time.sleep(0.02)
        return self.drift.found


@pytest.fixture
def watcher(make_node: Callable[..., NodeUnderTest]) -> Iterator[Watcher]:
    """Give the check over a node that lists some hundred addresses of both families."""
    ipv4 = (f"198.51.100.{n}" for n in range(200))
    ipv6 = (f"2001:db8::{n:x}" for n in range(50))
    listed = (LISTED, *ipv4, *ipv6)
    made = Watcher(make_node(listed).start())
    yield made
    made.store.close()


def test_no_drift_in_the_normal_course(watcher: Watcher) -> None:
    """Under traffic, with pages, bans, allow entries and modes that come and go."""
    node, now = watcher.node, time.time()
    network = parse_network("198.51.100.0/25")
    for step in range(3):
        node.api.feed.add(f"203.0.113.{step}")
        watcher.store.ban(
            [parse_network(f"192.0.2.{n}") for n in range(step * 80, step * 80 + 80)],
            source=LOCAL,
            reason="",
            expires=now + 3600,
            now=now,
        )
        watcher.store.allow([network], reason="", now=now)
        for source in (LISTED, GOOD):
            node.ask(source, timeout=0.1)
        watcher.look(1)
        watcher.store.unallow([network], now=now)
        node.write_settings(mode=("shadow", "off", "enforce")[step])
        watcher.look(1)
    assert watcher.look(3) == ()
    assert watcher.log.entries == []
    assert not node.events("drift")


def test_drift_while_the_sync_stands_still(watcher: Watcher) -> None:
    """What is banned then is in no list; when it goes on it is over."""
    report = read_report(report_path(watcher.node.folder / "runtime"))
    assert report is not None
    assert watcher.look(2.5) == ()
    os.kill(report.pid, signal.SIGSTOP)
    try:
        now = time.time()
        watcher.store.ban(
            [parse_network("192.0.2.0/24")], source=LOCAL, reason="", expires=now + 3600, now=now
        )
        assert watcher.look(4) == ("store-list",)
    finally:
        os.kill(report.pid, signal.SIGCONT)
    assert watcher.look(2) == ()
    assert [line["state"] for line in watcher.log.fields("drift")] == ["begun", "over"]


# Who is served ---------------------------------------------------------------------------------


def test_listed_source_cannot_scrape(node: NodeUnderTest, scraper: Scraper) -> None:
    """It gets no byte, and is counted."""
    before = node.board.total().dropped
    assert scraper.ask(source=LISTED) == (0, "")
    assert node.board.total().dropped == before + 1
    assert scraper.ask()[0] == 200


def test_all_else_is_refused(node: NodeUnderTest, scraper: Scraper) -> None:
    """Other paths and methods; at the port of SIP not even that is said."""
    for path in ("/", "/metrics/", "/metrics?x=1", "/metricsx", "//metrics", "/RPC2"):
        assert scraper.ask(path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE"):
        assert scraper.ask(method=method)[0] == 404, method
    assert scraper.ask(port=node.target[1]) == (0, "")
    for port in (node.target[1], scraper.port):
        with Sender(GOOD, (HOST, port)) as sender:
            request = b"GET /metrics HTTP/1.1\r\nHost: example.org\r\n\r\n"
            assert sender.ask(request, timeout=0.5) == b""
    assert node.passes(GOOD)
    assert node.passes(GOOD, "tcp")


def test_scrapes_leave_no_lines_in_the_log(node: NodeUnderTest, scraper: Scraper) -> None:
    """Served or refused, over one connection or many."""
    lines = len(node.kamailio.log_lines())
    for path in ("/metrics", "/other"):
        for port in (scraper.port, node.target[1]):
            scraper.ask(path, port=port)
    at = http.client.HTTPConnection(HOST, scraper.port, 5)
    for _ in range(5):
        at.request("GET", "/metrics")
        assert len(at.getresponse().read()) > 1000
    at.close()
    new = node.kamailio.log_lines()[lines:]
    assert [line for line in new if "apiban: " not in line] == []


def test_without_the_define_nothing_is_served(make_node: Callable[..., NodeUnderTest]) -> None:
    """HTTP stays what it was: nothing comes back, and no module for it is loaded."""
    node = make_node((LISTED,)).start()
    with Sender(GOOD, node.target, "tcp") as sender:
        sender.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        assert sender.receive(0.5) == b""
    assert "xhttp" not in node.kamailio.rpc("core.modules")


# The page --------------------------------------------------------------------------------------


def test_page_is_prometheus_and_the_documentation_is_the_page(
    node: NodeUnderTest, scraper: Scraper
) -> None:
    """It holds each documented metric of a node, no other of ours, and Kamailio's statistics."""
    told = firewall_report(at=time.time(), dropped_ipv4=7)
    write_firewall(firewall_path(node.folder / "runtime"), told)
    wait_for(lambda: scraper.number("apiban_sync_held_passes") is not None, "a whole page")
    wait_for(lambda: scraper.number("apiban_firewall_up") == 1, "the firewall client's numbers")
    status, page = scraper.ask()
    assert status == 200
    families = list(text_string_to_metric_families(page))
    dropped = [
        (sample.labels["family"], sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "apiban_firewall_dropped_packets_total"
    ]
    assert sorted(dropped) == [("ipv4", 7), ("ipv6", 0)]
    names = {family.name for family in families}
    samples = {sample.name for family in families for sample in family.samples}
    assert {name for name in declared() if not name.startswith("apiban_honeypot_")} == {
        name for name in names if "apiban_" in name and not name.startswith("script_")
    }
    assert {
        "core_rcv_requests",
        "shmem_free_size",
        "tcp_established",
        "tmx_active_transactions",
    } <= (samples)
    assert all(re.fullmatch(r"[a-z][a-zA-Z0-9_]*", name) for name in samples)
    assert watched() <= samples, "the alert rules and the dashboard use what there is"
    assert page.endswith("\n")
    assert len(page) < BUFFER / 4


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus has it")
def test_promtool_finds_but_what_xhttp_prom_leaves_out(
    node: NodeUnderTest, scraper: Scraper
) -> None:
    """Up to 6.0 it writes no help texts; nothing else is to be complained about."""
    wait_for(lambda: scraper.number("apiban_sync_held_passes") is not None, "a whole page")
    page = scraper.ask()[1]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    complaints = (done.stdout + done.stderr).splitlines()
    ours = [line for line in complaints if line.startswith("apiban_")]
    assert [line for line in ours if not line.endswith(" no help text")] == []
    assert [line for line in complaints if "error while linting" in line] == []
    assert done.returncode in {0, 3}


# Native configurations -------------------------------------------------------------------------


def native(port: int) -> str:
    """Give the lines that an operator adds."""
    return f'include_file "{METRICS}"\nlisten=tcp:{HOST}:{port}'


def serves(node: NodeUnderTest, scraper: Scraper, beginning: str = "") -> None:
    """Check that a flood shows, exactly, and that nobody else is served."""
    flood(node, 300)
    name = f"{beginning}apiban_dropped_packets_total"
    wait_for(lambda: scraper.number(name) == 300, "the drops", 5)
    assert scraper.ask("/other")[0] == 404
    assert scraper.ask(source=LISTED) == (0, "")


def test_native_file(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path, scraper: Scraper
) -> None:
    """One more include, and the port."""
    path = configuration(
        tmp_path,
        before=f"#!define APIBAN_METRICS_PORT {scraper.port}",
        routes=native(scraper.port),
    )
    node = make_node((LISTED, ALSO_LISTED), configuration=path).start()
    serves(node, scraper)
    assert scraper.ask(port=node.target[1]) == (0, "")


def test_debians_stock_file(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path, scraper: Scraper
) -> None:
    """Both includes in kamailio-local.cfg, which is read before any module is loaded."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "kamailio.cfg").write_bytes(STOCK.read_bytes())
    (folder / "kamailio-local.cfg").write_text(
        f'#!define APIBAN_METRICS_PORT {scraper.port}\ninclude_file "{INCLUDE}"\n'
        + native(scraper.port)
        + "\n"
    )
    node = make_node((LISTED, ALSO_LISTED), configuration=folder / "kamailio.cfg").start()
    serves(node, scraper)


def test_metrics_join_an_operators_own(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path, scraper: Scraper
) -> None:
    """Under the operator's beginning, served by the operator's route."""
    path = configuration(
        tmp_path,
        before="#!define APIBAN_NO_XHTTP\ntcp_accept_no_cl=yes\nhttp_reply_parse=yes",
        modules='loadmodule "xhttp.so"\nloadmodule "xhttp_prom.so"\n'
        'modparam("xhttp_prom", "xhttp_prom_timeout", 0)',
        routes=native(scraper.port) + "\nevent_route[xhttp:request] {"
        ' if (prom_check_uri()) { prom_dispatch(); } else { xhttp_reply("404", "No", "", "x"); } }',
    )
    node = make_node((LISTED, ALSO_LISTED), configuration=path).start()
    serves(node, scraper, beginning="kamailio_")


def test_undeclared_metrics_cost_a_line_a_minute(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """An operator who has xhttp_prom and none of our declarations is protected as before."""
    path = configuration(
        tmp_path,
        before="tcp_accept_no_cl=yes",
        modules='loadmodule "xhttp.so"\nloadmodule "xhttp_prom.so"',
        routes="event_route[xhttp:request] { prom_dispatch(); }",
    )
    node = make_node((LISTED,), configuration=path).start()

    def refusals() -> list[str]:
        return [line for line in node.kamailio.log_lines() if "No metric found for name" in line]

    wait_for(refusals, "the first refusal")
    time.sleep(3)
    assert len(refusals()) == 1
    assert node.is_dropped(LISTED)
    assert node.board.total().faults == 0


# The honeypot ----------------------------------------------------------------------------------


def proves(target: tuple[str, int]) -> bool:
    """Tell whether a tool proved itself; as a real one it asks anew when there is no answer."""
    with Tool("127.0.1.9", target) as tool:
        challenge = tool.ask(tool.request("REGISTER"), timeout=1)
        return bool(challenge) and bool(tool.ask(tool.answer_to(nonce_in(challenge)), timeout=1))


def test_honeypot(tmp_path: Path, scraper: Scraper) -> None:
    """Its own numbers, and only to whom asks at the port of the metrics."""
    with running(tmp_path, **scraper.options) as pot:
        with Tool("127.0.1.9", pot.target) as tool:
            for _ in range(3):
                assert b" 401 " in tool.prove()
            assert b" 200 OK" in tool.ask()
        wait_for(lambda: pot.counts.answers == 7, "all answers to be counted")
        counts = pot.counts
        assert (counts.sightings, counts.unproven) == (3, 4)
        wait_for(lambda: pot.feed.messages() == 3, "the report")
        name = "apiban_honeypot_last_report_timestamp_seconds"
        wait_for(lambda: scraper.number(name), "the last report's time", 5)
        numbers = scraper.numbers()
        assert numbers["apiban_honeypot_sightings_total"] == counts.sightings
        assert numbers["apiban_honeypot_unproven_messages_total"] == counts.unproven
        assert numbers["apiban_honeypot_answers_total"] == counts.answers
        assert numbers["apiban_honeypot_withheld_answers_total"] == 0
        assert numbers["apiban_honeypot_queue_rows"] == 0
        assert numbers["apiban_honeypot_reporter_running"] == 1
        assert abs(numbers[name] - time.time()) < 60
        ours = {n for n in declared() if n.startswith("apiban_honeypot_")}
        assert {n for n in numbers if n.startswith("apiban_")} == ours
        assert scraper.ask("/other")[0] == 404
        assert scraper.ask(method="POST") == (0, "")
        assert scraper.ask(port=pot.target[1]) == (0, "")
        assert (pot.counts.sightings, pot.counts.unproven) == (3, 4)  # a scrape is no probe
        pot.kamailio.rpc("app_python.reload")
        wait_for(lambda: proves(pot.target), "an answer to a new proof")
        wait_for(
            lambda: scraper.number("apiban_honeypot_sightings_total") == pot.counts.sightings > 3,
            "one more sighting",
            5,
        )
        assert not [line for line in pot.kamailio.log_lines() if "ERROR" in line]
