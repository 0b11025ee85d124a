"""SIPp's command lines, the numbers it leaves, and short real runs on loopback."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from apiban.trial.sipp import (
    SCENARIOS,
    Expectation,
    Load,
    Result,
    Server,
    SippError,
    command,
    expectation,
    read_result,
    serve,
    start,
)

FLOODS = ["scanner-options-flood", "scanner-register-flood"]
CLIENTS = [*FLOODS, "good-call", "good-options", "control-probe"]
ATTACKS = ["register-brute-force", "invite-toll-fraud", "malformed-junk"]
ALL = [*CLIENTS, *ATTACKS, "upstream-uas"]
FLOOD = Load("scanner-options-flood", "127.0.0.1:5060", "127.0.1.1", rate=1000, count=300)

STAT = (
    "StartTime;LastResetTime;CurrentTime;TotalCallCreated;SuccessfulCall(C);FailedCall(C);"
    "OutOfCallMsgs(C);DeadCallMsgs(C);AutoAnswered(C);FatalErrors(C);\n"
    "{day}100.5;{day}100.5;{day}100.5;0;0;0;0;0;0;0;\n"
    "{day}100.5;{day}100.5;{day}101.5;200;90;0;0;0;0;0;\n"
    "{day}100.5;{day}101.5;{day}102.75;200;197;3;4;5;6;0;\n"
).format(day="2025-03-01\t10:00:00.500000\t")
COUNTS = (
    "CurrentTime;ElapsedTime;0_OPTIONS_Sent;0_OPTIONS_Retrans;0_OPTIONS_Timeout;1_100_Recv;"
    "1_100_Retrans;1_100_Timeout;1_100_Unexp;2_Pause_Sessions;2_Pause_Unexp;3_200_Sent;"
    "3_200_Retrans;\n"
    "now;00:00:01:000000;9;9;9;9;9;9;9;9;9;9;9;\n"
    "now;00:00:02:250000;200;10;70;100;20;70;1;70;50;30;2;\n"
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return a run's two CSV files."""
    stat, counts = tmp_path / "stat.csv", tmp_path / "s_7_counts.csv"
    stat.write_text(STAT, "utf-8")
    counts.write_text(COUNTS, "utf-8")
    return stat, counts


def test_the_last_line_has_the_totals(files: tuple[Path, Path]) -> None:
    """Sent and retransmitted count as sent; expected, repeated, unexpected and late as received."""
    result = read_result(*files, exit_status=1)
    assert result.messages_sent == 200 + 10 + 30 + 2
    assert result.messages_received == 100 + 20 + 1 + 50 + 4 + 5 + 6
    assert (result.calls_created, result.calls_succeeded, result.calls_failed) == (200, 197, 3)
    assert (result.elapsed, result.sending) == (2.25, 1.0)
    assert result.exit_status == 1
    assert result.response_times == ()


def test_a_half_written_line_is_not_read(files: tuple[Path, Path]) -> None:
    """A run that was killed may leave the beginning of a line."""
    for file in files:
        with file.open("a", encoding="utf-8") as end:
            end.write("2025-03-01\t10:00:09.500000\t109;00:0")
    assert read_result(*files, exit_status=-9).messages_sent == 242


def test_response_times_are_those_of_the_first_timer(files: tuple[Path, Path]) -> None:
    """Milliseconds become seconds; a call's other timers are left out."""
    rtt = files[1].with_name("s_7_rtt.csv")
    rtt.write_text("Date_ms;response_time_ms;rtd_no\n1;4;1\n2;8.5;1\n3;12;2\n", "utf-8")
    assert read_result(*files, exit_status=0).response_times == (0.004, 0.0085)


def test_no_line_is_no_result(files: tuple[Path, Path]) -> None:
    """Only a header: the run counted nothing."""
    files[1].write_text(COUNTS.split("\n", maxsplit=1)[0] + "\n", "utf-8")
    with pytest.raises(IndexError):
        read_result(*files, exit_status=0)


def result(*, received: int = 0, succeeded: int = 100, created: int = 100) -> Result:
    """Return a result of 100 calls."""
    failed = created - succeeded
    return Result(created, received, created, succeeded, failed, 1.0, 0.5, 0, ())


@pytest.mark.parametrize(
    ("answers", "ratio", "outcome", "wrong"),
    [
        ("none", 1.0, result(), ""),
        ("none", 1.0, result(received=1), "1 answers to 100 calls, expected: none"),
        ("all", 1.0, result(received=100), ""),
        ("all", 1.0, result(received=99), "99 answers to 100 calls, expected: all"),
        ("any", 1.0, result(received=7), ""),
        ("any", 1.0, result(succeeded=99), "99 of 100 calls succeeded"),
        ("any", 0.95, result(succeeded=95), ""),
        ("none", 0.0, result(created=0, succeeded=0), "0 of 0 calls succeeded"),
    ],
)
def test_a_result_is_checked(answers: str, ratio: float, outcome: Result, wrong: str) -> None:
    """A run without calls is never as expected: it would prove nothing."""
    expected = Expectation(("udp",), answers, ratio, 0, 0, ())
    assert expected.check(outcome) == wrong


@pytest.mark.parametrize("name", ALL)
def test_each_scenario_is_complete(name: str) -> None:
    """A folder has a scenario that is XML, what is expected of it, and a README."""
    expected = expectation(SCENARIOS, name)
    junk = name == "malformed-junk"
    assert expected.transports == (("udp",) if junk else ("udp", "tcp"))
    silent = junk or name in FLOODS
    assert expected.answers == ("none" if silent else "any" if "uas" in name else "all")
    assert expected.success_ratio == 1.0
    assert (expected.rate > 0) == (expected.count > 0) == (name != "upstream-uas")
    assert ET.parse(SCENARIOS / name / "scenario.xml").getroot().tag == "scenario"  # noqa: S314 - ours
    assert name in (SCENARIOS / name / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_sends_one_message_a_call(name: str) -> None:
    """Nothing is retransmitted, and nothing is sent in answer to an answer."""
    root = ET.parse(SCENARIOS / name / "scenario.xml").getroot()  # noqa: S314 - ours
    assert [(one.tag, one.get("retrans")) for one in root] == [("send", None), ("timewait", None)]
    options = expectation(SCENARIOS, name).options
    assert options == ("-default_behaviors", "none", "-nr")


def test_the_probe_sends_the_floods_packet() -> None:
    """Otherwise it would not prove that the flood's packet passes from elsewhere."""
    flood, probe = (
        ET.parse(SCENARIOS / name / "scenario.xml").getroot().findtext("send")  # noqa: S314 - ours
        for name in ("scanner-options-flood", "control-probe")
    )
    assert flood == probe


@pytest.mark.parametrize("toml", ["", "answers = 1\nnonsense = 2\n", "=", None])
def test_unusable_expectations_are_an_error(tmp_path: Path, toml: str | None) -> None:
    """The error names the scenario."""
    (tmp_path / "mine").mkdir()
    if toml is not None:
        (tmp_path / "mine" / "expect.toml").write_text(toml, "utf-8")
    with pytest.raises(SippError, match=r"scenario mine: expect\.toml: "):
        expectation(tmp_path, "mine")


def follows(words: list[str], option: str) -> str:
    """Return the word behind an option."""
    return words[words.index(option) + 1]


def test_a_clients_command_over_udp() -> None:
    """One socket; the source address and port are ours."""
    words = command(FLOOD, 7001, SCENARIOS)
    assert words[:2] == ["sipp", "127.0.0.1:5060"]
    given = {one: follows(words, one) for one in ("-i", "-p", "-r", "-m", "-t", "-ci")}
    assert given == {
        "-i": "127.0.1.1",
        "-p": "7001",
        "-r": "1000",
        "-m": "300",
        "-t": "u1",
        "-ci": "127.0.0.1",
    }
    assert "-nostdin" in words
    assert "-bg" not in words
    assert "-inf" not in words
    assert follows(words, "-default_behaviors") == "none"


def test_a_clients_command_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection a call, never shared, and never more than files may be open."""
    tcp = Load("good-call", "[::1]:5060", "::1", rate=1, count=1, transport="tcp")
    for files, sockets in ((1024, 500), (256, 206), (resource.RLIM_INFINITY, 500)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        words = command(tcp, 7001, SCENARIOS)
        assert words[:2] == ["sipp", "[::1]:5060"]
        assert (follows(words, "-t"), follows(words, "-i")) == ("tn", "::1")
        assert follows(words, "-max_socket") == str(sockets)
        assert int(follows(words, "-l")) < sockets


def test_a_command_with_users() -> None:
    """The users of a scenario are given to SIPp."""
    load = Load("scanner-register-flood", "127.0.0.1:5060", "127.0.1.1", rate=1, count=1)
    users = Path(follows(command(load, 7001, SCENARIOS), "-inf"))
    assert users.read_text("utf-8").startswith("SEQUENTIAL\n100;\n")


@pytest.mark.parametrize(("transport", "mode"), [("udp", "u1"), ("tcp", "t1")])
def test_a_servers_command(transport: str, mode: str) -> None:
    """A server has no target, no rate and no end."""
    words = command(Server("upstream-uas", "::1", 0, transport), 7001, SCENARIOS)
    assert words[:3] == ["sipp", "-sf", "sipp-scenario.xml"]
    assert (follows(words, "-i"), follows(words, "-p")) == ("::1", "7001")
    assert follows(words, "-t") == mode
    assert not {"-r", "-m", "-l"} & set(words)


def test_without_sipp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SippError, match=r"sipp is not in PATH .*sip-tester"):
        start(FLOOD, SCENARIOS, tmp_path)


def test_a_transport_that_a_scenario_has_not(tmp_path: Path) -> None:
    """It is refused before anything is started."""
    with pytest.raises(SippError, match="scanner-options-flood is not for transport 'tls'"):
        start(
            Load("scanner-options-flood", "h:1", "127.0.1.1", 1, 1, 0, "tls"), SCENARIOS, tmp_path
        )


# From here on a real sipp runs.


class Peer:
    """A UDP socket on loopback that counts what comes, and may answer it."""

    def __init__(self, ip: str, answer: bytes | None) -> None:
        self.received: list[tuple[bytes, str]] = []
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        # Room for all that a test sends, should this thread not run for a while.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((ip, 0))
        port = self._socket.getsockname()[1]
        self.target = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            data, source = self._socket.recvfrom(65_535)
            if not data:
                return
            self.received.append((data, source[0]))
            if self._answer:
                lines = data.split(b"\r\n")
                names = (b"Via:", b"From:", b"To:", b"Call-ID:", b"CSeq:")
                head = [self._answer, *(line for line in lines if line.startswith(names))]
                self._socket.sendto(b"\r\n".join([*head, b"Content-Length: 0", b"", b""]), source)

    def close(self) -> None:
        """End the thread with an empty datagram: it is behind all others in the buffer."""
        if self._socket.fileno() < 0:
            return
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname()[:2])
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Return a function that makes peers, which are closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(ip: str = "127.0.0.1", answer: bytes | None = None) -> Peer:
            made = Peer(ip, answer)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize(("ip", "source"), [("127.0.0.1", "127.0.1.1"), ("::1", "::1")])
def test_a_flood_is_counted_exactly(
    name: str, ip: str, source: str, peer: Callable[..., Peer], tmp_path: Path
) -> None:
    """What SIPp says it sent is what a socket received, each from the source, each another call."""
    silent = peer(ip)
    with start(Load(name, silent.target, source, 1000, 300), SCENARIOS, tmp_path) as sipp:
        outcome = sipp.wait()
    silent.close()
    assert (outcome.messages_sent, outcome.messages_received) == (300, 0)
    assert outcome.calls_created == outcome.calls_succeeded == len(silent.received) == 300
    assert {from_ip for _, from_ip in silent.received} == {source}
    calls = {line for data, _ in silent.received for line in data.split(b"\r\n") if b"-ID" in line}
    assert len(calls) == 300
    assert expectation(SCENARIOS, name).check(outcome) == ""
    assert 0.2 < outcome.sending <= outcome.elapsed


def test_each_answer_to_a_flood_is_counted(peer: Callable[..., Peer], tmp_path: Path) -> None:
    """Of whatever code, and nothing is sent in return: no ACK, no BYE."""
    loud = peer(answer=b"SIP/2.0 477 Unheard Of")
    load = Load("scanner-options-flood", loud.target, "127.0.1.1", 1000, 300)
    with start(load, SCENARIOS, tmp_path) as sipp:
        outcome = sipp.wait()
    assert (outcome.messages_sent, outcome.messages_received) == (300, 300)
    assert len(loud.received) == 300
    assert "300 answers" in expectation(SCENARIOS, load.scenario).check(outcome)


@pytest.mark.parametrize("answer", ["200 OK", "404 Not Here", "603 Decline"])
def test_a_probe_takes_any_final_answer(
    answer: str, peer: Callable[..., Peer], tmp_path: Path
) -> None:
    """The proxy is alive, whatever it says."""
    loud = peer(answer=f"SIP/2.0 {answer}".encode())
    with start(Load("control-probe", loud.target, "127.0.0.1", 50, 5), SCENARIOS, tmp_path) as sipp:
        outcome = sipp.wait()
    assert (outcome.calls_succeeded, outcome.messages_received) == (5, 5)
    assert len(outcome.response_times) == 5


@pytest.mark.parametrize("answer", [None, b"SIP/2.0 100 Trying"])
def test_a_probe_fails_after_two_seconds(
    answer: bytes | None, peer: Callable[..., Peer], tmp_path: Path
) -> None:
    """Silence is a failure, and so is a provisional answer with nothing behind it."""
    silent = peer(answer=answer)
    load = Load("control-probe", silent.target, "127.0.0.1", 50, 3)
    with start(load, SCENARIOS, tmp_path) as sipp:
        outcome = sipp.wait()
    assert (outcome.calls_succeeded, outcome.calls_failed, outcome.exit_status) == (0, 3, 1)
    assert len(silent.received) == 3
    assert outcome.elapsed > 1.9


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_clients_reach_the_server(ip: str, transport: str, tmp_path: Path) -> None:
    """Calls, OPTIONS and REGISTER are answered, and both ends count the same."""
    with serve(Server("upstream-uas", ip, 0, transport), SCENARIOS, tmp_path) as server:
        target = f"[{ip}]:{server.port}" if ":" in ip else f"{ip}:{server.port}"
        for name in CLIENTS:
            load = Load(name, target, ip, 100, 20, transport=transport)
            with start(load, SCENARIOS, tmp_path) as client:
                outcome = client.wait()
            assert outcome.calls_succeeded == 20, name
            assert outcome.messages_received == (60 if name == "good-call" else 20), name
        served = server.stop(grace=0.5)  # its calls last 4 s longer, and are not of interest
    assert served.calls_created == 100
    assert (served.messages_received, served.messages_sent) == (4 * 20 + 3 * 20, 4 * 20 + 3 * 20)


def test_a_proxy_that_closes_connections(tmp_path: Path) -> None:
    """Over TCP too each message is counted, when its connection is closed without an answer."""
    connections: list[bytes] = []

    def close_each(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                with one:
                    connections.append(one.recv(65_535))

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        thread = threading.Thread(target=close_each, args=(listener,), daemon=True)
        thread.start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        load = Load("scanner-options-flood", target, "127.0.1.1", 500, 300, transport="tcp")
        with start(load, SCENARIOS, tmp_path) as sipp:
            outcome = sipp.wait()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert (outcome.messages_sent, outcome.messages_received) == (300, 0)
    assert outcome.calls_succeeded == len(connections) == 300
    assert all(data.startswith(b"OPTIONS ") for data in connections)


def test_a_client_is_stopped(peer: Callable[..., Peer], tmp_path: Path) -> None:
    """What it had sent until then is counted."""
    silent = peer()
    load = Load("scanner-options-flood", silent.target, "127.0.1.1", 500, 1_000_000)
    with start(load, SCENARIOS, tmp_path) as sipp:
        outcome = sipp.stop()
    silent.close()
    assert outcome.messages_sent == len(silent.received) < 100_000


def test_a_client_that_takes_too_long(peer: Callable[..., Peer], tmp_path: Path) -> None:
    """It is ended, and the error says so."""
    load = Load("scanner-options-flood", peer().target, "127.0.1.1", 1, 1000, timeout=0.3)
    sipp = start(load, SCENARIOS, tmp_path)
    with pytest.raises(SippError, match=r"^sipp did not end within 0\.3 s$"):
        sipp.wait()
    assert not Path(f"/proc/{sipp.pid}").exists()


def test_a_port_that_is_taken(peer: Callable[..., Peer], tmp_path: Path) -> None:
    """One line with SIPp's own reason."""
    port = int(peer().target.rsplit(":", 1)[1])
    taken = Server("upstream-uas", "127.0.0.1", port)
    with pytest.raises(SippError, match=r"sipp ended at once with status 254: .*in use\)$"):
        serve(taken, SCENARIOS, tmp_path)


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    """It is found before SIPp is started."""
    with pytest.raises(SippError, match=r"^cannot bind 192\.0\.2\.99: "):
        start(Load("good-options", "127.0.0.1:9", "192.0.2.99", 1, 1), SCENARIOS, tmp_path)


def test_a_scenario_that_is_broken(tmp_path: Path) -> None:
    """SIPp's reason is passed on."""
    shutil.copytree(SCENARIOS / "good-options", tmp_path / "good-options")
    (tmp_path / "good-options" / "scenario.xml").write_text("<scenario><sen", "utf-8")
    with pytest.raises(SippError, match="ended at once with status 1: Unable to load"):
        start(Load("good-options", "127.0.0.1:9", "127.0.0.1", 1, 1), tmp_path, tmp_path)
