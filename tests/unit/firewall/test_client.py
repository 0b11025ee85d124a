"""The firewall client, from one tick to the next."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.errors import SettingsError
from apiban.firewall import kernel as kernel_module
from apiban.firewall import reporter as reporter_module
from apiban.firewall.elements import Change, Held, Wanted
from apiban.firewall.plan import plan
from apiban.firewall.report import FirewallReport, report_path
from apiban.firewall.running import last_report, runs
from apiban.gate import Board
from apiban.settings import Mode
from apiban.snapshot.publish import durable_path
from apiban.sync.report import report_path as sync_path
from apiban.sync.report import write_report as write_sync

from tests.support.reports import sync_report
from tests.unit.firewall.world import HOUR, World, block


def test_the_list_is_in_the_kernel(world: World) -> None:
    """At the first tick, with the allowed before it; the report says so."""
    world.ban("198.51.100.7", "2001:db8::7")
    generation = world.publish()
    client = world.client()
    client.tick()
    assert world.banned == ["198.51.100.7", "2001:db8::7"]
    assert world.allowed == ["192.0.2.10"]
    assert world.log.fields("firewall")[0]["state"] == "ready"
    report = world.report
    assert (report.pid, report.generation, report.mode) == (os.getpid(), generation, "enforce")
    assert (report.banned_ipv4, report.banned_ipv6, report.trouble) == (1, 1, "")


def test_a_new_list(world: World) -> None:
    """What came and went is changed; nothing else, and nothing is read back."""
    world.ban("198.51.100.7", "198.51.100.8")
    world.publish()
    client = world.client()
    client.tick()
    world.unban("198.51.100.7")
    world.ban("203.0.113.5")
    world.publish()
    world.passes(client, 0.5)
    assert world.banned == ["198.51.100.8", "203.0.113.5"]
    change = world.backend.applied[-1]
    assert list(change.add) == [block("203.0.113.5")]
    assert change.remove == {block("198.51.100.7")}
    assert not change.rebuild
    assert world.backend.reads == 1


def test_the_newest_list_counts(world: World) -> None:
    """That of the runtime folder where the disk of the durable one is full."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.ban("198.51.100.8")
    world.publish(durable=False)
    world.passes(client, 0.5)
    assert world.banned == ["198.51.100.7", "198.51.100.8"]


def test_nothing_happens_while_nothing_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour with a list that stays: no change, a read and a plan each ten minutes."""
    plans: list[float] = []

    def counted(wanted: Wanted, held: Held | None, *, now: float) -> Change:
        plans.append(now)
        return plan(wanted, held, now=now)

    monkeypatch.setattr(kernel_module, "plan", counted)
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.passes(client, HOUR, step=1.0)
    assert len(world.backend.applied) == 1
    assert world.backend.reads == 1 + 6
    assert len(plans) == 1 + 6
    assert world.report.healed == 0


def test_a_foreign_flush_is_healed(world: World) -> None:
    """Within an interval all is back, said and counted; drops are not lost from the sum."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.kernel.drops("ipv4", 50)
    world.passes(client, 3)
    world.kernel.flush()
    world.passes(client, 10)
    assert world.banned == ["198.51.100.7"]
    assert world.log.names().count("firewall-healed") == 1
    world.kernel.drops("ipv4", 7)
    world.passes(client, 4)
    report = world.report
    assert (report.healed, report.dropped_ipv4, report.bytes_ipv4) == (1, 57, 5700)
    assert report.trouble == ""


def test_an_element_that_others_took_out(world: World) -> None:
    """It is put back, and so is one taken out that others put in."""
    world.ban("198.51.100.7", "198.51.100.8")
    world.publish()
    client = world.client()
    client.tick()
    del world.kernel.banned[block("198.51.100.7")]
    world.kernel.banned[block("203.0.113.1")] = int(world.clock.now()) + 5000
    world.kernel.generation += 1
    world.passes(client, 10.25)
    assert world.banned == ["198.51.100.7", "198.51.100.8"]
    assert world.report.healed == 1
    assert not world.backend.applied[-1].rebuild


def test_others_change_their_own_rules(world: World) -> None:
    """Then all is read back and nothing is done: that is no healing."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.kernel.generation += 1
    world.passes(client, 10.25)
    assert world.backend.reads == 2
    assert len(world.backend.applied) == 1
    assert world.report.healed == 0


def test_a_foreign_change_just_before_ours(world: World) -> None:
    """Our own change does not hide it: it is found at the next look."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    del world.kernel.banned[block("198.51.100.7")]
    world.kernel.generation += 1
    world.ban("198.51.100.8")
    world.publish()
    world.passes(client, 1)
    world.passes(client, 10)
    assert world.banned == ["198.51.100.7", "198.51.100.8"]
    assert world.report.healed == 1


def test_a_foreign_change_right_after_ours(world: World) -> None:
    """Nor does it hide one that came before we could look again."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()

    def stranger() -> None:
        world.backend.right_after = lambda: None
        del world.kernel.banned[block("198.51.100.7")]
        world.kernel.generation += 1

    world.backend.right_after = stranger
    world.ban("198.51.100.8")
    world.publish()
    world.passes(client, 1)
    assert world.banned == ["198.51.100.8"]
    world.passes(client, 10)
    assert world.banned == ["198.51.100.7", "198.51.100.8"]
    assert world.report.healed == 1


def test_a_later_end_while_no_list_comes(world: World) -> None:
    """It reaches the kernel before the ban runs out there, though nothing else happens."""
    world.ban("198.51.100.7", lasts=400)
    world.publish()
    client = world.client()
    client.tick()
    world.ban("198.51.100.7", lasts=790)
    world.publish()
    world.passes(client, 1)
    assert len(world.backend.applied) == 1
    for _ in range(780):
        world.passes(client, 1, step=1)
        assert world.banned == ["198.51.100.7"]
    assert len(world.backend.applied) == 2


def test_bans_that_are_renewed(world: World) -> None:
    """A feed that renews its entries each hour costs few extensions, and no ban runs out."""
    world.ban("198.51.100.7", lasts=10 * HOUR)
    world.publish()
    client = world.client()
    client.tick()
    for _ in range(30):
        for _ in range(60):
            world.passes(client, 60, step=60)
            assert world.banned == ["198.51.100.7"]
        world.ban("198.51.100.7", lasts=10 * HOUR)
        world.publish()
    extended = sum(len(change.extend) for change in world.backend.applied)
    assert 4 <= extended <= 8


def test_the_kernel_ends_bans_itself(world: World) -> None:
    """A ban ends without a change, and the report counts it no more."""
    world.ban("198.51.100.7", lasts=60)
    world.ban("198.51.100.8")
    world.publish()
    client = world.client()
    client.tick()
    world.passes(client, 70)
    assert world.banned == ["198.51.100.8"]
    assert len(world.backend.applied) == 1
    assert world.report.banned_ipv4 == 1
    assert world.report.healed == 0


def test_modes(world: World) -> None:
    """Shadow counts, off takes all out, enforce brings it back."""
    world.ban("198.51.100.7")
    world.publish(mode=Mode.SHADOW)
    client = world.client()
    client.tick()
    assert world.kernel.rules is not None
    assert not world.kernel.rules.drops
    assert world.cuts == []
    world.publish(mode=Mode.OFF)
    world.passes(client, 1)
    assert world.kernel.rules is None
    assert (world.report.mode, world.report.banned_ipv4) == ("off", 0)
    world.publish()
    world.passes(client, 1)
    assert world.banned == ["198.51.100.7"]
    assert world.kernel.rules.drops
    assert world.report.healed == 0


def test_off_stays_off(world: World) -> None:
    """What somebody puts there again in mode off goes again."""
    world.publish(mode=Mode.OFF)
    client = world.client()
    client.tick()
    assert world.kernel.rules is None
    assert world.backend.applied == []
    other = world.backend.applied
    world.publish()
    client2 = world.client()
    client2.tick()
    assert other
    world.publish(mode=Mode.OFF)
    world.passes(client, 11)
    assert world.kernel.rules is None


# Without a sync process ------------------------------------------------------------------------


def test_bans_without_a_sync_process(world: World) -> None:
    """Where nobody syncs the store itself is the list: ban and unban work at once."""
    world.syncs = False
    world.ban("198.51.100.7")
    client = world.client()
    client.tick()
    assert world.banned == ["198.51.100.7"]
    assert (world.report.generation, world.report.position) == (0, world.store.position())
    world.store.allow([parse_network("198.51.100.7")], reason="", now=world.clock.now())
    world.passes(client, 1.25)
    assert world.banned == []
    assert world.allowed == ["192.0.2.10", "198.51.100.7"]
    assert world.report.position == world.store.position()


def test_the_operators_mode_without_a_sync_process(world: World) -> None:
    """It goes before the settings' until its end."""
    world.syncs = False
    world.ban("198.51.100.7")
    client = world.client()
    client.tick()
    now = world.clock.now()
    world.store.set_mode(Mode.OFF, now=now, expires=now + 60, over=Mode.ENFORCE)
    world.passes(client, 1.25)
    assert world.kernel.rules is None
    world.passes(client, 61)
    assert world.banned == ["198.51.100.7"]


def test_a_sync_process_that_begins_does_not_undo(world: World) -> None:
    """The published list is older than the operator's unban until the sync publishes."""
    world.ban("198.51.100.7")
    world.kamailio_runs()
    world.publish()
    world.syncs = False
    client = world.client()
    client.tick()
    world.unban("198.51.100.7")
    world.passes(client, 1)
    assert world.banned == []
    world.syncs = True
    world.passes(client, 5)
    assert world.banned == []
    world.ban("198.51.100.9")
    world.publish()
    world.passes(client, 2)
    assert world.banned == ["198.51.100.9"]
    assert world.report.position == world.store.position()
    assert world.report.generation == 2


def test_a_sync_process_that_does_not_publish(world: World) -> None:
    """The list made here is never left for an older one: it goes on to be made here."""
    world.ban("198.51.100.7")
    world.kamailio_runs()
    world.publish()
    world.syncs = False
    client = world.client()
    client.tick()
    world.unban("198.51.100.7")
    world.passes(client, 1)
    world.syncs = True
    world.passes(client, 60)
    assert world.banned == []
    world.ban("198.51.100.9")
    world.passes(client, 1.25)
    assert world.banned == ["198.51.100.9"]
    assert world.report.position == world.store.position()
    generation = world.publish()
    world.passes(client, 2)
    assert world.banned == ["198.51.100.9"]
    assert (world.report.generation, world.report.position) == (
        generation,
        world.store.position(),
    )


def test_a_store_that_breaks(world: World) -> None:
    """The list that was made of it stays: what was published before knows less."""
    world.ban("198.51.100.7")
    world.publish()
    world.syncs = False
    client = world.client()
    client.tick()
    world.unban("198.51.100.7")
    world.passes(client, 2)
    assert world.banned == []
    world.store.close()
    for path in world.state.glob("store.db*"):
        path.unlink()
    (world.state / "store.db").write_bytes(b"no database" * 100)
    world.passes(client, 30)
    world.syncs = True
    world.passes(client, 60)
    assert world.banned == []
    assert [one["effect"] for one in world.log.fields("firewall-trouble")] == [
        "the last good list stays"
    ]


def test_a_sync_process_that_is_started_anew(world: World) -> None:
    """A second without one is no reason to compile the list here."""
    world.ban("198.51.100.7")
    generation = world.publish()
    client = world.client()
    client.tick()
    world.syncs = False
    world.passes(client, 2)
    world.syncs = True
    world.passes(client, 3)
    assert world.report.generation == generation


# Whom nobody may drop --------------------------------------------------------------------------


def test_a_new_own_address(world: World) -> None:
    """It is allowed within seconds, though an older list bans it."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.own = (*world.own, parse_network("198.51.100.7"))
    world.passes(client, 6)
    assert world.allowed == ["192.0.2.10", "198.51.100.7"]


def test_all_that_exempts(world: World) -> None:
    """allow.networks, peers, upstreams, and the store's allow list until an entry ends."""
    world.write_settings(top='[allow]\nnetworks = ["203.0.113.0/24"]')
    now = world.clock.now()
    world.store.allow([parse_network("198.51.100.9")], reason="", now=now, expires=now + 30)
    world.publish()
    client = world.client()
    client.tick()
    assert world.allowed == ["192.0.2.10", "198.51.100.9", "203.0.113.0/24"]
    world.passes(client, 31)
    assert world.allowed == ["192.0.2.10", "203.0.113.0/24"]


# Settings --------------------------------------------------------------------------------------


def test_new_settings(world: World) -> None:
    """They are taken when the file changes; rules that are others are made anew."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.write_settings('ports = ["udp/5060"]')
    world.passes(client, 1)
    assert world.kernel.rules is not None
    assert [str(port) for port in world.kernel.rules.ports] == ["udp/5060"]
    assert world.banned == ["198.51.100.7"]


def test_bad_settings(world: World) -> None:
    """At the start they end it; later the last good ones stay, with one line."""
    world.publish()
    client = world.client()
    client.tick()
    world.write_settings('backend = "pf"')
    world.passes(client, 10)
    assert len(world.log.fields("settings-refused")) == 1
    assert "firewall.backend" in world.report.trouble
    assert world.kernel.rules is not None
    with pytest.raises(SettingsError):
        world.client()
    world.write_settings()
    world.passes(client, 1)
    assert world.report.trouble == ""


def test_another_backend(world: World) -> None:
    """The new one protects before the old one is taken out."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    other = world.backends["ipset"]
    world.write_settings('backend = "ipset"')
    other.broken = "ipset is not installed: apt-get install ipset"
    world.passes(client, 5)
    assert world.banned == ["198.51.100.7"]
    other.broken = ""
    world.passes(client, 10)
    assert list(other.kernel.alive()) == [block("198.51.100.7")]
    assert world.kernel.rules is None
    assert world.report.backend == "ipset"


def test_a_backend_that_does_not_work_and_back(world: World) -> None:
    """Who goes back to the former backend has its rules: they never go, and are kept up."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    for name in ("ipset", "nftables", "ipset", "nftables"):
        world.backends["ipset"].broken = "ipset is not installed: apt-get install ipset"
        world.write_settings(f'backend = "{name}"')
        for _ in range(20):
            world.passes(client, 0.25)
            assert world.banned == ["198.51.100.7"]
    world.passes(client, 70)
    assert world.banned == ["198.51.100.7"]
    assert world.report.trouble == ""
    world.kernel.flush()
    world.passes(client, 11)
    assert world.banned == ["198.51.100.7"]


def test_a_former_backend_that_stays(world: World) -> None:
    """What could not be taken out is tried again, with pauses, and is good again when it is."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.backend.broken = "nft: not permitted"
    world.write_settings('backend = "ipset"')
    world.passes(client, 300, step=1.0)
    assert world.backends["ipset"].kernel.alive()
    assert world.report.trouble == "nft: not permitted"
    assert 7 <= world.backend.refused <= 12
    world.backend.broken = ""
    world.passes(client, 61)
    assert world.kernel.rules is None
    assert world.report.trouble == ""
    assert {"state": "good again", "part": "former backend"} in world.log.fields("firewall")


def test_a_dry_run_of_a_client_that_runs(world: World) -> None:
    """It changes nothing: the rules that there are stay, and are kept up again after it."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.write_settings('backend = "dry-run"\non_exit = "remove"')
    told = world.report
    world.passes(client, 30)
    assert world.backends["dry-run"].applied
    assert world.report == told  # a dry run protects nobody, and tells nobody that it does
    assert world.banned == ["198.51.100.7"]
    world.unban("198.51.100.7")
    world.ban("198.51.100.8")
    world.publish()
    world.passes(client, 2)
    world.write_settings()
    world.passes(client, 2)
    assert world.banned == ["198.51.100.8"]
    assert not world.backend.applied[-1].rebuild
    world.write_settings('backend = "dry-run"\non_exit = "remove"')
    world.passes(client, 2)
    told = world.report
    client.stop()
    assert world.banned == ["198.51.100.8"]
    assert world.report == told  # of what is in the kernel yet


# Clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-40 * HOUR, 40 * HOUR])
def test_the_clock_is_set(world: World, shift: float) -> None:
    """Each ban ends when the list says by the new clock, whatever it was before."""
    now = world.clock.now()
    world.ban("198.51.100.7", lasts=100 * HOUR)
    world.publish()
    world.clock.set_wall(now - shift)
    client = world.client()
    client.tick()
    world.clock.set_wall(now)
    for block_ in world.kernel.banned:  # its own clock is none that anybody sets
        world.kernel.banned[block_] += int(shift)
    world.passes(client, 1)
    (end,) = world.kernel.alive().values()
    assert now + 50 * HOUR <= end <= now + 100 * HOUR + 3
    world.passes(client, 99 * HOUR, step=30)
    assert world.banned == ["198.51.100.7"]
    world.passes(client, HOUR + 10, step=10)
    assert world.banned == []


def test_bans_that_a_wrong_clock_held_for_over(world: World) -> None:
    """They are banned as soon as the clock is right."""
    now = world.clock.now()
    world.ban("198.51.100.7", lasts=10 * HOUR)
    world.publish()
    world.clock.set_wall(now + 20 * HOUR)
    client = world.client()
    client.tick()
    assert world.banned == []
    world.clock.set_wall(now)
    world.passes(client, 1)
    assert world.banned == ["198.51.100.7"]


def test_the_machine_slept(world: World) -> None:
    """The kernel's times stood still: all is read, and ends are those of the list again."""
    world.ban("198.51.100.7", lasts=10 * HOUR)
    world.publish()
    client = world.client()
    client.tick()
    for block_ in world.kernel.banned:
        world.kernel.banned[block_] += int(5 * HOUR)
    world.clock.tick(5 * HOUR)
    world.slept += 5 * HOUR
    world.passes(client, 1)
    (end,) = world.kernel.alive().values()
    assert end <= world.clock.now() + 5 * HOUR + 3


def test_a_ban_right_after_its_end(world: World) -> None:
    """The kernel may still have it: it is given another end, not only added."""
    world.ban("198.51.100.7", lasts=20)
    world.publish()
    client = world.client()
    client.tick()
    world.passes(client, 21)
    assert world.banned == []
    world.kernel.banned[block("198.51.100.7")] = int(world.clock.now()) + 1
    cuts = len(world.cuts)
    world.ban("198.51.100.7", lasts=600)
    world.publish()
    world.passes(client, 3)
    assert world.banned == ["198.51.100.7"]
    assert list(world.backend.applied[-1].extend) == [block("198.51.100.7")]
    assert len(world.cuts) == cuts + 1
    assert world.report.healed == 0


# Long lists ------------------------------------------------------------------------------------


def test_a_long_list_beside_others_changes(world: World) -> None:
    """Reading takes a twentieth of the time at most, and rules that go are seen all the same."""
    world.ban("198.51.100.7")
    world.publish()
    world.backend.reading = lambda: world.clock.tick(3.0)
    client = world.client()
    client.tick()
    for _ in range(60):
        world.kernel.generation += 1
        world.passes(client, 10)
    assert 600 / 63 - 1 <= world.backend.reads <= 600 / 60 + 3
    assert world.report.healed == 0
    world.kernel.generation += 1
    world.kernel.frame += 1  # somebody changed a rule of ours
    assert world.kernel.rules is not None
    world.kernel.rules = replace(world.kernel.rules, drops=False)
    world.passes(client, 14)
    assert world.kernel.rules.drops
    assert world.report.healed == 1


def test_all_gone_is_seen_by_the_counters(world: World) -> None:
    """It need not last an interval, with whichever list."""
    world.write_settings("interval = 60")
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.kernel.flush()
    world.passes(client, 3)
    assert world.banned == ["198.51.100.7"]
    assert world.report.healed == 1


def test_counters_that_cost_are_read_rarely(world: World) -> None:
    """Those of ipset each ten seconds, those of nftables each two."""
    world.ban("198.51.100.7")
    world.publish()
    for name, most in (("nftables", 31), ("ipset", 7)):
        world.write_settings(f'backend = "{name}"')
        client = world.client()
        client.tick()
        world.backends[name].counted = 0
        world.passes(client, 60)
        assert most - 2 <= world.backends[name].counted <= most


# Faults ----------------------------------------------------------------------------------------


def test_a_kernel_that_cannot_be_changed(world: World) -> None:
    """One line while it lasts, tries further and further apart, and all is well again after."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    world.backend.broken = "nft: not permitted: it needs CAP_NET_ADMIN"
    client.tick()
    world.passes(client, 300, step=1.0)
    assert len(world.log.fields("firewall-trouble")) == 1
    assert "CAP_NET_ADMIN" in world.report.trouble
    assert 8 <= world.backend.refused <= 12  # after 1, 2, 4 ... 60 s, not each second
    world.backend.broken = ""
    world.passes(client, 61, step=1.0)
    assert world.banned == ["198.51.100.7"]
    assert world.report.trouble == ""
    assert {"state": "good again", "part": "kernel"} in world.log.fields("firewall")


def test_a_kernel_that_fails_for_a_while(world: World) -> None:
    """What it holds stays, and what is new comes when it works again."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.backend.broken = "nft: no memory"
    world.ban("198.51.100.8")
    world.publish()
    world.passes(client, 20)
    assert world.banned == ["198.51.100.7"]
    assert world.report.trouble == "nft: no memory"
    assert world.report.position != world.store.position()
    world.backend.broken = ""
    client.reload()
    client.tick()
    assert world.banned == ["198.51.100.7", "198.51.100.8"]


def test_a_list_that_cannot_be_read(world: World) -> None:
    """The kernel keeps what it holds; the next good list is taken."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    for path in (*world.runtime.glob("snapshot-*"), durable_path(world.state)):
        path.unlink()
        path.write_bytes(b"no list")
    world.passes(client, 60)
    assert world.banned == ["198.51.100.7"]
    troubles = world.log.fields("firewall-trouble")
    assert [one["part"] for one in troubles] == ["list"]
    world.ban("198.51.100.8")
    world.publish()
    world.passes(client, 6)
    assert world.banned == ["198.51.100.7", "198.51.100.8"]
    assert world.report.trouble == ""


def test_no_list_at_all(world: World) -> None:
    """Nothing is done to the kernel, and the report says why."""
    client = world.client()
    world.passes(client, 60)
    assert world.kernel.generation == 0
    assert "there is no list yet" in world.report.trouble


def test_the_first_list(world: World) -> None:
    """Waiting for it is one line, and no trouble; when it came the client is ready."""
    client = world.client()
    world.passes(client, 60)
    assert world.log.names() == ["firewall"]
    (told,) = world.log.fields("firewall")
    assert told["state"] == "waiting"
    assert "no list yet" in told["reason"]
    world.ban("198.51.100.7")
    world.publish()
    world.passes(client, 6)
    assert world.banned == ["198.51.100.7"]
    assert [one["state"] for one in world.log.fields("firewall")] == ["waiting", "ready"]
    assert world.log.fields("firewall-trouble") == []
    assert world.report.trouble == ""


def test_the_first_list_is_the_stores(world: World) -> None:
    """Where nobody published any, and nobody syncs any more: then none is waited for."""
    client = world.client()
    world.passes(client, 1)
    assert "no list yet" in world.report.trouble
    world.ban("198.51.100.7")
    world.syncs = False
    world.passes(client, 5)
    assert world.banned == ["198.51.100.7"]
    assert world.report.trouble == ""


def test_a_first_list_that_cannot_be_read(world: World) -> None:
    """That is trouble, also after none was there."""
    client = world.client()
    client.tick()
    durable_path(world.state).write_bytes(b"no list")
    world.passes(client, 6)
    assert [one["part"] for one in world.log.fields("firewall-trouble")] == ["list"]
    world.publish()
    world.passes(client, 6)
    assert {"state": "good again", "part": "list"} in world.log.fields("firewall")


def test_a_store_that_cannot_be_read(world: World) -> None:
    """Where nobody syncs the published list is used."""
    world.ban("198.51.100.7")
    world.publish()
    world.syncs = False
    world.store.close()
    for path in world.state.glob("store.db*"):
        path.unlink()
    (world.state / "store.db").write_bytes(b"no database" * 100)
    client = world.client()
    world.passes(client, 30)
    assert world.banned == ["198.51.100.7"]
    assert [one["part"] for one in world.log.fields("firewall-trouble")] == ["store"]


def test_a_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report cannot be written: said once, and the kernel is kept to the list."""

    def full(_path: Path, _report: object) -> None:
        raise OSError(28, "No space left on device")

    client = world.client()
    monkeypatch.setattr(reporter_module, "write_report", full)
    world.ban("198.51.100.7")
    world.publish()
    world.passes(client, 30)
    assert world.banned == ["198.51.100.7"]
    assert [one["part"] for one in world.log.fields("firewall-trouble")] == ["report"]


def test_it_was_killed(world: World) -> None:
    """Another client goes on with what is there: not one change, and no drop is counted twice."""
    world.ban("198.51.100.7")
    world.publish()
    world.client().tick()
    world.kernel.drops("ipv4", 50)
    world.clock.tick(30)
    again = world.client()
    again.tick()
    world.kernel.drops("ipv4", 3)
    world.passes(again, 4)
    assert len(world.backend.applied) == 1
    assert world.report.dropped_ipv4 == 3


@pytest.mark.parametrize("on_exit", ["keep", "remove"])
def test_the_end(world: World, on_exit: str) -> None:
    """Rules and bans stay or go, as set."""
    world.write_settings(f'on_exit = "{on_exit}"')
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    client.stop()
    assert bool(world.banned) == (on_exit == "keep")
    left = last_report(world.runtime, world.clock.now())
    assert (left is not None) == (on_exit == "keep")
    if left is not None:
        assert left.stopped
        assert not runs(left, world.clock.now())
        (end,) = world.kernel.alive().values()
        assert left.kept_until == end
        assert last_report(world.runtime, end) is None  # nothing is left then
    assert world.log.fields("firewall-stop") == [
        {"rules": "kept" if on_exit == "keep" else "removed"}
    ]


def test_an_end_before_the_kernel_was_seen(world: World) -> None:
    """What a former client left runs out at a feed's longest end; before a tick it is as it was."""
    client = world.client()
    client.stop()
    assert not report_path(world.runtime).exists()
    client = world.client()
    client.tick()  # there is no list
    client.stop()
    feed = world.settings.feed
    assert world.report.kept_until == world.clock.now() + feed.ban_for + feed.stale_max


def test_an_end_that_cannot_remove(world: World) -> None:
    """Then the report stays: the kernel holds what it says."""
    world.write_settings('on_exit = "remove"')
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.backend.broken = "nft is not there"
    client.stop()
    assert world.report.banned_ipv4 == 1
    assert world.log.fields("firewall-stop") == [{"rules": "kept"}]


# The report ------------------------------------------------------------------------------------


def test_a_change_is_reported_at_once(world: World) -> None:
    """Who bans or unbans waits for that: not for the next second."""
    world.syncs = False
    world.ban("198.51.100.7")
    client = world.client()
    client.tick()
    world.passes(client, 3)
    for _ in range(4):
        world.ban("198.51.100.8")
        world.passes(client, 0.25)
        assert (world.report.position, world.report.banned_ipv4) == (world.store.position(), 2)
        world.unban("198.51.100.8")
        world.passes(client, 0.25)
        assert (world.report.position, world.report.banned_ipv4) == (world.store.position(), 1)


def test_a_published_change_is_reported_at_once(world: World) -> None:
    """Where somebody syncs: in the second look after it was published."""
    world.ban("198.51.100.7")
    world.kamailio_runs()
    world.publish()
    client = world.client()
    world.passes(client, 3)
    for number in range(4):
        world.ban(f"198.51.100.{10 + number}")
        world.passes(client, 0.25)
        assert world.report.position < world.store.position()
        world.publish()
        world.passes(client, 0.5)
        assert world.report.position == world.store.position()
        assert world.report.banned_ipv4 == 2 + number


def test_reports_are_not_written_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five a second at most, however fast changes come and the client ticks."""
    written: list[FirewallReport] = []
    monkeypatch.setattr(reporter_module, "write_report", lambda _, one: written.append(one))
    world.syncs = False
    world.ban("198.51.100.7")
    client = world.client()
    client.tick()
    world.passes(client, 3)
    written.clear()
    for number in range(100):
        world.ban(f"198.51.100.{10 + number}")
        world.passes(client, 0.01, step=0.01)
    assert 3 <= len(written) <= 6


def test_counters_of_a_kamailio_that_ended(world: World) -> None:
    """They say nothing of what another sync process publishes: its report does."""
    world.ban("198.51.100.7")
    board = Board.create(world.runtime / "counters", now=0.0)
    board.take_slot(1, 2**22 + 1)  # no process has this number
    board.announce(9, position=1)
    client = world.client()
    world.ban("198.51.100.8")
    world.publish()
    write_sync(sync_path(world.runtime), sync_report(position=world.store.position()))
    world.passes(client, 2)
    assert world.report.position == world.store.position()


# Connections -----------------------------------------------------------------------------------


def test_connections_of_the_banned_are_cut(world: World) -> None:
    """Those of who is newly banned, and of nobody else."""
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    client.tick()
    world.ban("198.51.100.8")
    world.publish()
    world.passes(client, 12)
    assert world.cuts == [block("198.51.100.7"), block("198.51.100.8")]
    assert world.spared == [block("192.0.2.10")]
    assert world.report.cut == 4


def test_bans_in_a_row_are_cut_together(world: World) -> None:
    """Each cut walks through all connections: once in ten seconds at most, who is banned still."""
    world.syncs = False
    world.ban("198.51.100.7")
    client = world.client()
    client.tick()
    for number in range(15):
        world.ban(f"198.51.101.{number}")
        world.passes(client, 1)
    world.unban("198.51.101.14")
    world.passes(client, 11)
    assert len(world.cut_at) == 3
    assert min(later - one for one, later in itertools.pairwise(world.cut_at)) >= 10
    assert sorted(world.cuts) == [
        block("198.51.100.7"),
        *(block(f"198.51.101.{number}") for number in range(14)),
    ]


def test_the_report_does_not_wait_for_a_cut(world: World) -> None:
    """Who bans waits for the report, and a cut may take seconds."""
    world.syncs = False
    world.ban("198.51.100.7")
    world.client().tick()
    assert world.known_at_cut == [world.store.position()]


def test_a_dry_run_cuts_nothing(world: World) -> None:
    """It changes nothing in the kernel, so no connection either."""
    world.write_settings('backend = "dry-run"')
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    world.passes(client, 2)
    assert world.cut_at == []
    client.stop()
    assert not report_path(world.runtime).exists()  # nothing of it is in the kernel


def test_no_tool_for_connections(world: World) -> None:
    """One line; the ban itself is in force."""
    world.cut_fails = "conntrack is not installed"
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    world.passes(client, 30)
    assert world.banned == ["198.51.100.7"]
    assert [one["part"] for one in world.log.fields("firewall-trouble")] == ["conntrack"]
    assert world.report.trouble == ""


def test_established_connections_go_on(world: World) -> None:
    """With established at keep none is cut."""
    world.write_settings('established = "keep"')
    world.ban("198.51.100.7")
    world.publish()
    world.client().tick()
    assert world.cuts == []


# Offload ---------------------------------------------------------------------------------------


def flood(world: World, client: object, seconds: int, **rates: int) -> None:
    """Let sources send so many packets a second, which Kamailio drops."""
    for _ in range(seconds):
        for source, rate in rates.items():
            world.kamailio_drops(source.replace("_", ".").strip("."), rate)
        world.kamailio_runs()
        world.passes(client, 1)  # type: ignore[arg-type]


def test_only_flooding_sources(world: World) -> None:
    """Who floods goes to the kernel within seconds, until flood_for after it was last seen."""
    world.write_settings('sources = "flooding"\nflood_rate = 50\nflood_for = 60')
    world.ban("198.51.100.7", "198.51.100.8", "203.0.113.0/24")
    world.publish()
    world.kamailio_runs()
    client = world.client()
    client.tick()
    assert world.banned == []
    flood(world, client, 4, _198_51_100_7=60, _198_51_100_8=40, _203_0_113_9=500, _192_0_2_77=900)
    assert world.banned == ["198.51.100.7", "203.0.113.9"]  # 192.0.2.77 is on no list
    report = world.report
    assert [one.source for one in report.flooding] == ["203.0.113.9", "198.51.100.7"]
    assert 450 <= report.flooding[0].rate <= 550
    flood(world, client, 58, _203_0_113_9=500)
    assert world.banned == ["198.51.100.7", "203.0.113.9"]
    flood(world, client, 10, _203_0_113_9=500)
    assert world.banned == ["203.0.113.9"]
    for _ in range(62):
        world.kamailio_runs()
        world.passes(client, 1)
    assert world.banned == []
    assert world.report.flooding == ()
    flood(world, client, 3, _203_0_113_9=500)
    assert world.banned == ["203.0.113.9"]


def test_an_unbanned_source_that_floods(world: World) -> None:
    """It goes out at once."""
    world.write_settings('sources = "flooding"')
    world.ban("198.51.100.7")
    world.kamailio_runs()
    world.publish()
    client = world.client()
    client.tick()
    flood(world, client, 3, _198_51_100_7=600)
    assert world.banned == ["198.51.100.7"]
    world.unban("198.51.100.7")
    world.publish()
    world.passes(client, 1.25)
    assert world.banned == []
    world.passes(client, 1)
    assert world.report.flooding == ()


def test_a_restart_amid_a_flood(world: World) -> None:
    """What the kernel holds stays there until its end."""
    world.write_settings('sources = "flooding"')
    world.ban("198.51.100.7")
    world.kamailio_runs()
    world.publish()
    client = world.client()
    client.tick()
    flood(world, client, 3, _198_51_100_7=600)
    again = world.client()
    again.tick()
    world.passes(again, 5)
    assert world.banned == ["198.51.100.7"]


def test_offload_without_kamailio(world: World) -> None:
    """Nothing is offloaded, and one line says so when it had a minute to start."""
    world.write_settings('sources = "flooding"')
    world.ban("198.51.100.7")
    world.publish()
    client = world.client()
    world.passes(client, 59)
    assert world.log.fields("firewall-trouble") == []
    assert world.report.trouble == ""
    world.passes(client, 30)
    assert world.banned == []
    assert [one["part"] for one in world.log.fields("firewall-trouble")] == ["kamailio"]
    world.kamailio_runs()
    world.passes(client, 2)
    assert world.report.trouble == ""
