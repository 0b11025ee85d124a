import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from tests.contract.feed.conftest import DATABASES, IPV6, Make
from tests.support.feedservice import FeedService, host, hosts, sighting
from tests.support.node import wait_for

BAD_INPUT = [
    "list nonsense",
    "list 45.80.0.256",
    "list 45.80.0.1/24",
    "list 0.0.0.0/0",
    "list 45.0.0.0/8",
    "list ::/0",
    "list 10.0.0.1",
    "list 8.8.8.8",
    "list",
    "list 45.80.0.9 nonsense",
    "list 45.80.0.9 --for ever",
    "list 45.80.0.9 --for -1d",
    "list 45.80.0.9 --for 0",
    "list 45.80.0.9 --for 99999999999999d",
    "list 45.80.0.9 --for 1e999",
    "list 45.80.0.9 --for nan",
    "list 45.80.0.9 --set smtp",
    "delist nonsense",
    "delist 45.80.0.1 --for soon",
    "show nonsense",
    "import {folder}/missing",
    "import {folder}",
    "import {folder}/junk",
    "import {folder}/half",
    "import --store {folder}/store.json",
    "import --store {folder}/junk",
    "import --store {folder}/missing",
    "export --output {folder}/exists",
    "export --output {folder}/no/such/folder/file",
    "export --store --output {folder}/exists",
    "key create there",
    "key create",
    "key create x --requests -1",
    "key create x --requests many",
    "key create x --requests 99999999999999999999999",
    "key create x --window 0",
    "key create x --window -5s",
    "key create x --may write",
    "key revoke nobody",
    "key rotate nobody",
    "key change nobody --ipv6",
    "mirror",
    "serve --log loud",
    "nonsense",
]
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> FeedService:
    """Give a feed that is not started, for commands that must change nothing."""
    service = FeedService(tmp_path_factory.mktemp("idle"))
    service.key("there")
    service.cli("list", host(1))
    (service.folder / "exists").write_text("mine\n", encoding="ascii")
    (service.folder / "junk").write_bytes(bytes(range(256)) * 40)
    (service.folder / "half").write_text(f"{host(5)}\nnonsense\n{host(6)}\n", encoding="ascii")
    (service.folder / "store.json").write_text('{"what": "ever"}\n[[[\n', encoding="ascii")
    return service


@pytest.fixture(scope="module")
def runs(idle: FeedService) -> Iterator[dict[str, Future[Ended]]]:
    """Run all bad input, a few at once: most of the time goes into the starts."""

    def run(arguments: str) -> Ended:
        return idle.run(*arguments.format(folder=idle.folder).split())

    with ThreadPoolExecutor(3) as pool:
        yield {arguments: pool.submit(run, arguments) for arguments in BAD_INPUT}


@pytest.mark.parametrize("arguments", BAD_INPUT)
def test_bad_input(runs: dict[str, Future[Ended]], arguments: str) -> None:
    """One clear line (behind click's usage), a status, and no traceback."""
    this = runs[arguments].result()
    assert this.returncode > 0, this
    said = [
        line
        for line in this.stderr.splitlines()
        if line and not line.startswith(("Usage: ", "Try '"))
    ]
    assert len(said) == 1, this.stderr
    assert len(said[0]) < 500
    assert "Traceback" not in this.stdout + this.stderr


def test_bad_input_changed_nothing(idle: FeedService, runs: dict[str, Future[Ended]]) -> None:
    """Neither the list, nor the keys, nor files that were there."""
    wait(runs.values())
    assert idle.cli("export").split() == [host(1)]
    assert [one["name"] for one in json.loads(idle.cli("key", "list", "--json"))] == ["there"]
    assert (idle.folder / "exists").read_text(encoding="ascii") == "mine\n"


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "x" * 5000, "\u202e"])
def test_odd_key_names(idle: FeedService, name: str) -> None:
    """Refused, or shown on one line without control characters."""
    ended = idle.run("key", "create", "--", name)
    assert "Traceback" not in ended.stderr
    shown = idle.cli("key", "list")
    assert not set(shown) & set("\x1b\t\u202e")
    lines = shown.splitlines()
    assert len(lines) - 1 == len(json.loads(idle.cli("key", "list", "--json")))


@pytest.mark.parametrize(
    "text", ["", "short", "a/b c" * 20, "k\x00" * 20, "\u00e9" * 40, "k" * 5000]
)
def test_odd_keys_of_ones_own(idle: FeedService, text: str) -> None:
    """A key that no request could carry, or that is easily guessed, is refused."""
    ended = idle.run(
        "key", "create", f"own{len(text)}{text[:1].encode().hex()}", "--stdin", stdin=text
    )
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert len(text) < 4 or text not in ended.stderr


def test_key_of_ones_own(make: Make) -> None:
    """``--stdin`` takes it, and it works; it is not printed."""
    service = make()
    own = "my-own-key-0123456789-abcdefghij"
    out = service.cli("key", "create", "own", "--stdin", stdin=own + "\n")
    assert own not in out
    service.start()
    assert service.banned(1, own).status == 400
    assert service.run("key", "create", "again", "--stdin", stdin=own).returncode != 0


BAD_SETTINGS = {
    "missing": None,
    "no TOML": "serve = = 1",
    "no text": "\x00\x01",
    "unknown name": "serve.prot = 1",
    "unknown section": "sever.port = 1",
    "wrong type": 'serve.port = "x"',
    "port too large": "serve.port = 70000",
    "negative": "curation.sightings = -1",
    "no database": 'database.url = "nonsense"',
    "another database": 'database.url = "mysql://u:s3cr3tpw@127.0.0.1/x"',
    "nobody there": 'database.url = "postgresql://u:s3cr3tpw@127.0.0.1:1/x"',
    "half of TLS": 'serve.certificate = "/nonexistent.pem"',
    "no certificate": 'serve.certificate = "/nonexistent.pem"\nserve.certificate_key = "/none.key"',
    "plain http to all": 'serve.host = "0.0.0.0"',
    "plain http to all IPv6": 'serve.host = "::"',
    "plain http to an address": 'serve.host = "192.0.2.9"',
    "mirror without key": 'mirror.url = "https://feed.example/api/"',
    "mirror over http": 'mirror.url = "http://192.0.2.1/api/"\nmirror.key = "0123456789abcdef"',
    "never-list missing": 'curation.never_file = "/nonexistent"',
}
SERVED = ["nobody there", "no certificate", "plain http to all", "never-list missing"]


@pytest.fixture(scope="module")
def refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[tuple[str, str], Future[Ended]]]:
    """Run ``check`` and ``serve`` with all bad settings, a few at once."""

    def run(case: tuple[str, str]) -> Ended:
        service = FeedService(tmp_path_factory.mktemp("bad"))
        text = BAD_SETTINGS[case[0]]
        if text is None:
            service.settings_file.unlink()
        else:
            lines = {line.split(" = ")[0]: line for line in text.splitlines()}
            kept = service.settings_file.read_text(encoding="utf-8").splitlines()
            kept = [line for line in kept if line.split(" = ")[0] not in lines]
            service.settings_file.write_text("\n".join([*kept, text, ""]), encoding="utf-8")
        return service.run(case[1], timeout=30)

    cases = [(name, "check") for name in BAD_SETTINGS]
    cases += [(name, "serve") for name in SERVED]
    with ThreadPoolExecutor(3) as pool:
        yield {case: pool.submit(run, case) for case in cases}


@pytest.mark.parametrize(
    "case",
    [*((name, "check") for name in BAD_SETTINGS), *((name, "serve") for name in SERVED)],
    ids=" ".join,
)
def test_bad_settings(refused: dict[tuple[str, str], Future[Ended]], case: tuple[str, str]) -> None:
    """Said in a line or two, without a traceback, and without the password."""
    this = refused[case].result()
    assert this.returncode > 0, this
    assert 1 <= len(this.stderr.splitlines()) <= 3, this.stderr
    assert "Traceback" not in this.stdout + this.stderr
    assert "s3cr3tpw" not in this.stdout + this.stderr


def test_http_beyond_loopback_when_asked_for(make: Make) -> None:
    """The setting makes it good."""
    assert make(serve__host="0.0.0.0", serve__allow_http=True).run("check").returncode == 0


def test_settings_from_the_environment(make: Make) -> None:
    """They come before the file's."""
    service = make()
    command = ["env", "APIBAN_SERVER_SERVE_PORT=nonsense", *service.command("check")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode != 0
    assert "PORT" in ended.stderr


def test_settings_that_others_can_read(make: Make) -> None:
    """When they hold a key or a password: refused."""
    service = make(mirror__url="http://127.0.0.1:9/api/", mirror__key="0123456789abcdef")
    service.settings_file.chmod(0o644)
    ended = service.run("check")
    assert ended.returncode != 0
    assert str(service.settings_file) in ended.stderr


def test_port_that_is_taken(make: Make) -> None:
    """The second service ends with a clear line, and the first goes on."""
    first, second = make(), make()
    first.start()
    second.write_settings(serve__port=first.port)
    ended = second.run("serve", timeout=20)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert str(first.port) in ended.stderr
    assert first.is_ready()


def test_check_of_a_good_feed(make: Make, database: str) -> None:
    """It makes the tables, and changes nothing the second time."""
    service = make(database)
    assert service.cli("check") == service.cli("check")


def test_list_delist_show(make: Make, database: str) -> None:
    """By hand, with a reason that is kept; what is not listed can be delisted beforehand."""
    service = make(database)
    key = service.keys["reader"]
    service.start()
    service.cli(
        "list",
        host(1),
        host(2),
        "--for",
        "30d",
        "--reason",
        "tells 'lies'; --\x00x".replace("\x00", ""),
    )
    wait_for(lambda: service.listed(key) == [host(1), host(2)], "both listed", 5)
    assert "tells 'lies'; --" in service.cli("show", host(1))
    service.cli("list", host(1))
    assert service.listed(key).count(host(1)) == 1
    service.cli("delist", host(1), host(9), "--reason", "a friend")
    wait_for(lambda: service.listed(key) == [host(2)], "one off", 5)
    service.cli("show", host(77))
    service.cli("list", host(3), "--for", "2s")
    wait_for(lambda: host(3) in service.listed(key), "listed for a while", 5)
    wait_for(lambda: host(3) not in service.listed(key), "and not for ever", 6)


def test_http_set_is_apart(make: Make, database: str) -> None:
    """v2 asks for one set or all; v1 gives SIP's."""
    service = make(database)
    key = service.keys["reader"]
    service.cli("list", host(1))
    service.cli("list", host(2), "--set", "http")
    service.start()
    assert service.post("get", key, {"set": "sip"}).document["ipaddress"] == [host(1)]
    assert service.post("get", key, {"set": "http"}).document["ipaddress"] == [host(2)]
    assert service.post("get", key, {"set": "all"}).document["ipaddress"] == [host(1), host(2)]
    assert service.listed(key) == [host(1)]
    assert service.post("check", key, {"set": "sip", "ipaddress": host(2)}).status == 400
    assert service.post("check", key, {"set": "all", "ipaddress": host(2)}).status == 200
    assert service.cli("export", "--set", "http").split() == [host(2)]


def test_import_replaces_its_own_list_only(make: Make, database: str) -> None:
    """Comments, blanks and repetitions are fine; another list's claim keeps an address."""
    service = make(database)
    key = service.keys["every"]
    service.cli("list", host(1))
    text = f"# bad ones\n\n  {host(1)}  \r\n{host(2)} # two\n{host(2)}\n{IPV6}\n45.95.4.0/24\n"
    service.cli("import", "-", "--name", "a", stdin=text)
    service.cli("import", "-", "--name", "b", stdin=f"{host(2)}\n{host(3)}\n")
    service.start()
    assert sorted(service.listed(key)) == sorted([host(1), host(2), host(3), IPV6, "45.95.4.0/24"])
    service.cli("import", "-", "--name", "a", "--replace", stdin=f"{host(4)}\n")
    wanted = sorted([host(1), host(2), host(3), host(4)])
    wait_for(lambda: sorted(service.listed(key)) == wanted, "the replacement", 5)
    assert sorted(service.cli("export").split()) == wanted


def test_import_of_what_may_not_be_listed(make: Make) -> None:
    """Private, never-listed and over-wide entries of a file are not listed, whatever the rest."""
    service = make()
    key = service.keys["every"]
    text = "10.0.0.1\n8.8.8.8\n0.0.0.0/0\n8.0.0.0/8\n::/0\n127.0.0.0/8\n"
    service.run("import", "-", stdin=f"{text}{host(1)}\n")
    service.start()
    assert set(service.listed(key)) <= {host(1)}


def test_import_of_a_hundred_thousand(make: Make, database: str) -> None:
    """Within half a minute, while it runs; a pull is complete and oldest first."""
    service = make(database)
    key = service.keys["reader"]
    service.start()
    many = hosts(100_000)
    source = service.folder / "many.txt"
    source.write_text("\n".join(many) + "\n", encoding="ascii")
    began = time.monotonic()
    service.cli("import", str(source), "--name", "many")
    assert time.monotonic() - began < 30
    wait_for(lambda: service.check(1, key, many[-1]).status == 200, "all listed", 10)
    began = time.monotonic()
    cursor = str(next(service.pages(key))[0])
    assert service.ask("GET", f"/ipset/{key}/list").body.decode().split() == many
    assert time.monotonic() - began < 10
    place = 250
    for _, page in itertools.islice(service.pages(key, cursor), 40):
        assert page == many[place : place + 250]
        place += 250
    last = int(service.check(2, key, many[-600]).document["ID"])
    assert service.listed(key, str(last)) == many[-599:]


@pytest.mark.parametrize("target", DATABASES)
def test_store_moves_to_another_database(make: Make, target: str) -> None:
    """Keys, IDs, evidence, quotas, delistings and repeated reports are as they were."""
    old = make()
    key, pot, few = old.keys["every"], old.keys["pot"], old.keys["client"]
    old.start()
    queue = "a" * 32
    batch = [sighting(host(n), n + 1) for n in range(300)]
    assert old.report(pot, batch, queue).document["accepted"] == 300
    wait_for(lambda: len(old.listed(key)) == 300, "the list", 10)
    old.cli("delist", host(7), host(299))
    old.cli("list", IPV6, "--reason", "by hand")
    wait_for(lambda: old.listed(key)[-1] == IPV6, "the list", 5)
    old.cli("delist", IPV6)
    wait_for(lambda: len(old.listed(key)) == 298, "the list", 5)
    for _ in range(5):
        assert old.banned(1, few).status == 200
    before, top = list(old.pages(key)), old.cli("show", host(5))
    old.stop()
    store = old.folder / "store"
    old.cli("export", "--store", "--output", str(store))
    assert store.stat().st_mode & 0o077 == 0
    assert all(text not in store.read_text(encoding="utf-8") for text in (key, pot, few))
    new = make.empty(target)
    new.cli("import", "--store", str(store))
    assert new.run("import", "--store", str(store)).returncode != 0
    new.start()
    assert list(new.pages(key)) == before
    assert new.cli("show", host(5)) == top
    assert new.report(pot, batch, queue).document == {
        "accepted": 0,
        "repeated": 300,
        "refused": [],
    }
    assert new.report(pot, [sighting(host(7), 900), sighting(host(800), 901)], queue).status == 200
    wait_for(lambda: len(new.listed(key)) == 299, "what is new", 5)
    assert new.listed(key, str(before[-1][0]))[-1:] == [host(800)]
    assert new.banned(1, few).status == 429


def test_export_is_what_clients_get(shared: FeedService) -> None:
    """An address or network a line."""
    exported = shared.cli("export").split()
    assert exported == shared.listed(shared.keys["every"])


def test_store_moves_from_postgresql(make: Make) -> None:
    """A store exported from there is good for SQLite, and comes through a pipe, too."""
    old, new = make("postgresql"), make.empty()
    old.cli("list", *hosts(3))
    new.cli("import", "--store", "-", stdin=old.cli("export", "--store"))
    new.start()
    assert new.listed(old.keys["reader"]) == hosts(3)
