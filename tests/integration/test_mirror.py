"""The operator's hash table in a real Kamailio, filled from our list."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

INCLUDE = SCRIPT.parents[1] / "kamailio" / "apiban-include.cfg"
LISTED, IN_RANGE, GOOD = "127.0.1.5", "127.0.9.77", "127.0.2.1"

CONFIGURATION = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
#!define APIBAN_NO_HTABLE_MODULE
#!define APIBAN_NO_EVENT_ROUTE
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "ctl.so"
loadmodule "htable.so"
loadmodule "jsonrpcs.so"
modparam("jsonrpcs", "transport", 2)
modparam("jsonrpcs", "fifo_name", "{folder}/fifo")
modparam("htable", "htable", "apiban=>size=10;")
modparam("htable", "htable", "other=>size=4;")
include_file "{include}"
request_route {{
    if ($sht(apiban=>$si) != $null) {{
        exit;
    }}
    sl_send_reply("200", "OK");
}}
"""


# Ranges are the quick way to many addresses: each of these is 4,096.
TWENTIES = tuple(f"10.{n}.16.0/20" for n in range(10))


def count(node: NodeUnderTest, table: str = "apiban") -> int:
    """Count what is in a table."""
    found = re.search(
        rf"name: {table}\s+slots: \d+\s+all: (\d+)", node.kamailio.rpc("htable.stats")
    )
    assert found
    return int(found[1])


def silent(node: NodeUnderTest, source: str) -> bool:
    """Tell whether the operator's check drops a source."""
    return not node.ask(source, timeout=0.3)


@pytest.fixture
def make(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> Callable[..., NodeUnderTest]:
    """Make a node whose only check is the operator's."""

    def made(*listed: str, **options: Any) -> NodeUnderTest:
        path = tmp_path / "own.cfg"
        path.write_text(CONFIGURATION.format(folder=tmp_path, include=INCLUDE), encoding="utf-8")
        node = make_node(listed, configuration=path, **options)
        node.write_settings(htable__mirror="apiban")
        return node

    return made


def test_addresses_and_ranges(make: Callable[..., NodeUnderTest]) -> None:
    """The operator's check drops them; what changes is followed, a reload of the code goes on."""
    node = make(LISTED, "127.0.9.0/24", "2001:db8::/127", "::1.2.3.4").start()
    wait_for(lambda: count(node) == 1 + 256 + 3, "the list in the table")
    for key in ("2001:db8::1", "::1.2.3.4", "127.0.9.255"):
        assert "value: 1" in node.kamailio.rpc("htable.get", "apiban", f"s:{key}")
    assert silent(node, LISTED)
    assert silent(node, IN_RANGE)
    assert node.passes(GOOD)
    node.api.feed.add(GOOD)
    wait_for(lambda: silent(node, GOOD), "that the new one is dropped")
    node.kamailio.rpc("app_python.reload")
    wait_for(lambda: node.events("reload"), "the reload")
    node.write_settings(allow__networks=[GOOD])
    wait_for(lambda: node.passes(GOOD, timeout=0.3), "that the allowed one passes")
    assert silent(node, LISTED)


def test_table_is_the_mirrors_own(make: Callable[..., NodeUnderTest]) -> None:
    """What others put in is taken out at the next comparison, and no slot stays locked."""
    node = make(LISTED).start()
    wait_for(lambda: count(node) == 1, "the list in the table")
    others = (GOOD, "x", "2001:DB8::1", *(f"10.0.0.{n}" for n in range(50)))
    for key in others:
        node.kamailio.rpc("htable.seti", "apiban", f"s:{key}", "1")
    node.kamailio.rpc("htable.delete", "apiban", f"s:{LISTED}")
    node.kamailio.rpc("htable.seti", "other", f"s:{GOOD}", "1")
    assert count(node) == len(others)
    node.kamailio.rpc("app_python.reload")
    wait_for(lambda: count(node) == 1, "that the others are out")
    assert silent(node, LISTED)
    assert count(node, "other") == 1
    assert LISTED in node.kamailio.rpc("htable.dump", "apiban")  # it waits for each slot's lock


def test_start_in_another_mode_fills_nothing(make: Callable[..., NodeUnderTest]) -> None:
    """The last list was made for the mode before: what is in force now counts from the start."""
    node = make(LISTED).start()
    wait_for(lambda: count(node) == 1, "the list in the table")
    node.kamailio.stop()
    said = len(node.events("mirror"))
    node.write_settings(mode="shadow")
    node.kamailio.start()
    wait_for(lambda: len(node.events("mirror")) > said, "the mirror's line")
    assert node.passes(LISTED)
    assert all("mode=shadow" in line for line in node.events("mirror")[said:])


def test_filling_it_while_calls_go_on(make: Callable[..., NodeUnderTest]) -> None:
    """Filling and emptying the table delays no good request."""
    node = make(*TWENTIES[:3]).start()

    def is_full() -> bool:
        assert node.passes(GOOD, timeout=1.0)
        return count(node) == 12_288

    wait_for(is_full, "the list in the table", 20)
    (line,) = node.events("mirror")
    assert "entries=12288 left_out=0 mode=enforce" in line
    node.write_settings(mode="off")
    wait_for(lambda: count(node) == 0, "that the table is empty")
    assert node.passes(GOOD)


def test_memory_is_left_to_kamailio(make: Callable[..., NodeUnderTest]) -> None:
    """Where the list does not fit, the mirror stops in time, and Kamailio goes on."""
    node = make(*TWENTIES, options=("-x", "tlsf", "-m", "8"))
    node.start()
    wait_for(lambda: node.events("mirror-failed"), "that it stops", 30)
    free = re.search(r"free: (\d+)", node.kamailio.rpc("core.shmmem"))
    assert free
    assert int(free[1]) > 1 << 20
    assert 0 < count(node) < 40_960
    assert node.passes(GOOD)
    assert not [line for line in node.kamailio.log_lines() if "no more" in line or "no shm" in line]
