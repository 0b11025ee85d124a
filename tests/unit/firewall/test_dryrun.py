"""The dry run keeps the contract of the real ones, and says what it would do."""

from __future__ import annotations

import time

import pytest
from apiban.errors import FirewallError
from apiban.firewall.dryrun import DryRunBackend
from apiban.firewall.elements import FOREVER, Change, Counter
from apiban.firewall.rules import Port

from tests.contract.firewall import test_changes, test_strangers
from tests.contract.firewall.parts import LISTED, block, blocks, rules, same


@pytest.fixture
def said() -> list[str]:
    """Give what is said."""
    return []


@pytest.fixture
def backend(said: list[str]) -> DryRunBackend:
    """Give a dry run."""
    return DryRunBackend(say=said.append)


@pytest.mark.parametrize(
    "test",
    [
        test_changes.test_nothing_of_ours,
        test_changes.test_what_is_built_is_read,
        test_changes.test_nothing_to_hold,
        test_changes.test_all_kinds_of_rules,
        test_changes.test_one_change_of_everything,
        test_changes.test_a_rebuild_is_all_there_is,
        test_changes.test_an_end_that_is_over_is_no_ban_for_good,
        test_changes.test_what_ended_meanwhile_can_be_changed,
        test_strangers.test_nobody_changed_anything,
    ],
    ids=lambda test: test.__name__,
)
def test_the_contract(backend: DryRunBackend, test: object) -> None:
    """What holds for the kernel holds for the memory."""
    assert callable(test)
    test(backend)


def test_bans_end(backend: DryRunBackend) -> None:
    """An end that is over is no ban, without a change."""
    backend.apply(Change(add={block(LISTED): 100}, rebuild=True), rules(), now=90.0)
    assert same(backend.read(rules(), now=99.9), {block(LISTED): 100}, frozenset())
    assert same(backend.read(rules(), now=100.0), {}, frozenset())


def test_what_it_says(backend: DryRunBackend, said: list[str]) -> None:
    """Each change is a line that a person can read."""
    chosen = rules(ports=(Port("udp", 5060, 5061),), drops=False)
    backend.apply(
        Change(add={block(LISTED): 86400, block("2001:db8::/32"): FOREVER}, rebuild=True),
        chosen,
        now=0.0,
    )
    backend.apply(
        Change(
            extend={block(LISTED): 172800},
            remove=blocks("2001:db8::/32"),
            allow=blocks("192.0.2.0/24"),
        ),
        chosen,
        now=0.0,
    )
    backend.apply(Change(disallow=blocks("192.0.2.0/24")), chosen, now=0.0)
    backend.remove()
    backend.remove()
    assert said == [
        (
            "would make all anew: count at input, ports udp/5060-5061, interfaces all,"
            " established drop"
        ),
        f"would ban {LISTED} until 1970-01-02T00:00:00Z",
        "would ban 2001:db8::/32 for good",
        "would allow 192.0.2.0/24",
        f"would ban longer, or shorter: {LISTED} until 1970-01-03T00:00:00Z",
        "would unban 2001:db8::/32",
        "would allow no more: 192.0.2.0/24",
        "would take out all rules and sets of ours",
    ]
    assert backend.read(chosen, now=0.0) is None


def test_a_long_list_is_summed_up(backend: DryRunBackend, said: list[str]) -> None:
    """What is said stays short; the script has it all."""
    change = Change(add={(4, n, n): FOREVER for n in range(100)}, rebuild=True)
    backend.apply(change, rules(), now=0.0)
    assert said[-1] == "would ban 80 more"
    assert len(said) == 22
    assert backend.script(change, rules(), now=0.0).count("would ban 0.0.0.") == 100


def test_a_change_of_nothing(backend: DryRunBackend, said: list[str]) -> None:
    """A small change where nothing is held is an error, as in the kernel."""
    with pytest.raises(FirewallError):
        backend.apply(Change(add={block(LISTED): FOREVER}), rules(), now=time.time())
    assert said == []


def test_nothing_is_counted(backend: DryRunBackend) -> None:
    """It sees no packet."""
    assert backend.counters() == {"ipv4": Counter(0, 0), "ipv6": Counter(0, 0)}
