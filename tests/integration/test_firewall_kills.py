"""What kills and faults leave of the kernel's rules: what protects, and one line that says why."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from apiban.address import parse_address
from apiban.firewall.choose import rules_of
from apiban.firewall.elements import Block
from apiban.firewall.nftables import NftablesBackend
from apiban.settings import Mode, load_settings
from apiban.snapshot.compile import compile_ranges
from apiban.snapshot.file import write_snapshot
from apiban.snapshot.format import encode_snapshot
from apiban.snapshot.origin import Origin
from apiban.snapshot.publish import durable_path

from tests.contract.firewall.world import PORT, World, run
from tests.support.node import NodeUnderTest, wait_for
from tests.support.pbx import ADDRESS, Pbx
from tests.support.service import Service

pytestmark = pytest.mark.timeout(180)

ALWAYS = parse_address("203.0.113.5").first
LATER = parse_address("203.0.113.6").first
MANY = 20_000
KILLS = 15


@pytest.fixture
def pbx(world: World, make_node: Callable[..., NodeUnderTest]) -> Iterator[Pbx]:
    """Give a host whose list is what the test publishes: no sync runs, and there is no store."""
    made = Pbx(world, make_node())
    yield made
    made.apiban("firewall", "flush", "--force")


class Lists:
    """Publishes lists, as a sync process that ended since."""

    def __init__(self, pbx: Pbx) -> None:
        self._path = durable_path(pbx.state)
        self._generation = 0

    def publish(self, listed: frozenset[int]) -> None:
        """Put a list in the place of the last one."""
        self._generation += 1
        end = int(time.time()) + 86400
        content = encode_snapshot(
            generation=self._generation,
            created=time.time(),
            mode=Mode.ENFORCE,
            ipv4=compile_ranges(
                ((one, one, end + one % 1000, int(Origin.FEED)) for one in sorted(listed)), ()
            ),
            ipv6=[],
        )
        write_snapshot(self._path, content)


class Watch:
    """A listed source that sends all along; ``through`` counts what came through."""

    def __init__(self, world: World) -> None:
        self._ear = world.listener("203.0.113.5")
        self._mouth = world.sender("203.0.113.5")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._ear.settimeout(0)
        self._thread.start()

    def _send(self) -> None:
        while not self._end.wait(0.002):
            self._mouth.sendto(b"hello", (ADDRESS, PORT))

    def through(self) -> int:
        """Give how many came since the last look."""
        count = 0
        try:
            while self._ear.recv(64):
                count += 1
        except BlockingIOError:
            return count
        return count

    def close(self) -> None:
        """End."""
        self._end.set()
        self._thread.join()
        self._ear.close()
        self._mouth.close()


@contextmanager
def _changing(lists: Lists, contents: tuple[frozenset[int], ...]) -> Iterator[None]:
    """Publish one list after the other, again and again."""
    end = threading.Event()

    def change() -> None:
        number = 0
        while not end.wait(0.1):
            number += 1
            lists.publish(contents[number % len(contents)])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _held(pbx: Pbx) -> frozenset[int]:
    """Give who is in the kernel, whose rules are all there and as they should be."""
    settings = load_settings(Path(pbx.node.settings_file), {}).firewall
    held = NftablesBackend().read(rules_of(settings, Mode.ENFORCE), now=time.time())
    assert held is not None
    assert held.intact
    return frozenset(_one(block) for block in held.banned)


def _one(block: Block) -> int:
    _, first, last = block
    assert first == last
    return first


def test_kill_at_any_instant_leaves_one_list_whole(pbx: Pbx) -> None:
    """With lists of 20,000 that change: no half of one is there, and no packet gets through."""
    begin = parse_address("100.64.0.0").first
    both = {begin + 2 * number for number in range(MANY - 500)} | {ALWAYS}
    contents = tuple(
        frozenset(both | {begin + 2 * (MANY + half * 1000 + number) for number in range(500)})
        for half in range(2)
    )
    lists, chance = Lists(pbx), random.Random(6)
    lists.publish(contents[0])
    client = pbx.client()
    with closing(Watch(pbx.world)) as watch, client:
        wait_for(lambda: client.events("firewall"), "the first list in the kernel")
        wait_for(lambda: not watch.through(), "silence")
        watch.through()
        with _changing(lists, contents):
            for number in range(KILLS):
                if number % 2:  # once it works, else while it starts
                    _await_change(client)
                time.sleep(chance.uniform(0.0, 0.8))
                client.kill()
                assert _held(pbx) in contents
                client.start()
        lists.publish(contents[0])
        wait_for(lambda: _held(pbx) == contents[0], "the latest list")
        assert watch.through() == 0


def _await_change(client: Service) -> None:
    before = len(client.events("firewall-changed"))
    wait_for(lambda: len(client.events("firewall-changed")) > before, "a change of the list")


# Faults ----------------------------------------------------------------------------------------

_NO_RIGHT = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")


def _mounted(script: str) -> tuple[str, ...]:
    """Give words that run a command with mounts of its own."""
    return ("unshare", "-m", "sh", "-c", f'{script} && exec "$@"', "sh")


def _over_nft(folder: Path, text: str, mode: int) -> tuple[str, ...]:
    """Give words that run a command where another program stands in nft's place."""
    stub = folder / "nft"
    stub.write_text(text, encoding="utf-8")
    stub.chmod(mode)
    return _mounted(f"mount --bind {stub} $(readlink -f $(command -v nft))")


_LACKS = "#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2\nexit 1\n"


@pytest.mark.parametrize("fault", ["no program", "no support"])
def test_kernel_that_cannot_be_changed_keeps_what_it_has(
    pbx: Pbx, tmp_path: Path, fault: str
) -> None:
    """One line that says what is missing, while it is tried again; then it goes on by itself."""
    lists = Lists(pbx)
    lists.publish(frozenset({ALWAYS}))
    pbx.apiban("firewall", "once")
    lists.publish(frozenset({ALWAYS, LATER}))
    if fault == "no program":
        before, said = _over_nft(tmp_path, "", 0o600), "nft"
    else:
        before, said = _over_nft(tmp_path, _LACKS, 0o700), "nf_tables"
    with pbx.client(before=before) as client:
        wait_for(lambda: client.events("firewall-trouble"), "a line of it")
        asserted = time.monotonic() + 3.5  # two tries more at least
        while time.monotonic() < asserted:
            assert client.runs
            assert len(client.events("firewall-trouble")) == 1
            time.sleep(0.1)
        assert said in client.events("firewall-trouble")[0]
        assert _held(pbx) == {ALWAYS}
    with pbx.client():
        wait_for(lambda: _held(pbx) == {ALWAYS, LATER}, "the later list")


def test_missing_privilege_is_said_at_the_start(pbx: Pbx) -> None:
    """One line and status 1; the kernel keeps what it has."""
    lists = Lists(pbx)
    lists.publish(frozenset({ALWAYS}))
    pbx.apiban("firewall", "once")
    lists.publish(frozenset({ALWAYS, LATER}))
    with pbx.client(before=_NO_RIGHT) as client:
        assert client.process is not None
        assert client.process.wait(10) == 1
        said = [line for line in client.lines() if not line.startswith("apiban: event=")]
        assert len(said) == 1
        assert "CAP_NET_ADMIN" in said[0]
    assert _held(pbx) == {ALWAYS}


def test_full_disk_is_no_reason_to_drop_less(pbx: Pbx) -> None:
    """The list is in the kernel all the same; one line tells what cannot be written."""
    lists = Lists(pbx)
    lists.publish(frozenset({ALWAYS}))
    pbx.runtime.mkdir(exist_ok=True)
    state, runtime = pbx.state, pbx.runtime
    # Folders with the list in them, and with not a byte of room.
    full = f"""
        cp {state}/snapshot {runtime}/kept && mount -t tmpfs -o size=4m apiban {state} \\
        && cp {runtime}/kept {state}/snapshot && mount -t tmpfs -o size=8k apiban {runtime} || exit
        for folder in {state} {runtime}; do cat /dev/zero >$folder/full 2>/dev/null; done
        true"""
    with pbx.client(before=_mounted(full)) as client:
        wait_for(lambda: client.events("firewall-trouble"), "a line of it")
        wait_for(lambda: _held(pbx) == {ALWAYS}, "the list in the kernel")
        asserted = time.monotonic() + 2.5
        while time.monotonic() < asserted:
            assert client.runs
            assert len(client.events("firewall-trouble")) == 1
            time.sleep(0.1)
        assert "No space left" in client.events("firewall-trouble")[0]


def test_list_that_cannot_be_read_leaves_the_last_one(pbx: Pbx) -> None:
    """In a client that runs, and in one that starts with it; a good one is taken then."""
    lists = Lists(pbx)
    lists.publish(frozenset({ALWAYS}))
    with pbx.client() as client:
        wait_for(lambda: client.events("firewall"), "the first list in the kernel")
        durable_path(pbx.state).write_bytes(b"garbage" * 1000)
        wait_for(lambda: client.events("firewall-trouble"), "a line of it")
        assert _held(pbx) == {ALWAYS}
        client.stop()
        client.start()
        wait_for(lambda: len(client.events("firewall-trouble")) == 2, "a line of the second one")
        assert _held(pbx) == {ALWAYS}
        lists.publish(frozenset({ALWAYS, LATER}))
        wait_for(lambda: _held(pbx) == {ALWAYS, LATER}, "the good list")
        assert len(client.events("firewall-trouble")) == 2
    run("nft", "-j", "list", "ruleset")
