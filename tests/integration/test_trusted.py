"""Whom the running Kamailio trusts by its own tables is not dropped, listed or not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.sync.peers import peers_path
from apiban.trial.kamailio import SCRIPT

from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

DESTINATION, ADDRESS, IN_SUBNET, TRUSTED = "127.0.1.5", "127.0.1.6", "127.0.7.9", "127.0.1.8"
OTHER_GROUP, LATER, NOBODY = "127.0.1.9", "127.0.1.10", "127.0.1.11"
LISTED = (DESTINATION, ADDRESS, IN_SUBNET, TRUSTED, OTHER_GROUP, LATER, NOBODY)
SOON = 15.0  # a question every ten seconds, and what comes after it
INCLUDE = SCRIPT.parents[1] / "kamailio" / "apiban-include.cfg"

CONFIGURATION = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "ctl.so"
{jsonrpcs}
loadmodule "db_text.so"
loadmodule "dispatcher.so"
loadmodule "permissions.so"
modparam("dispatcher", "list_file", "{folder}/dispatcher.list")
modparam("permissions", "db_url", "text://{folder}/db")
modparam("permissions", "db_mode", 1)
include_file "{include}"
request_route {{
    sl_send_reply("200", "OK");
}}
"""
# As Debian's stock configuration loads it, but for the places of its sockets.
JSONRPCS = """loadmodule "jsonrpcs.so"
modparam("jsonrpcs", "pretty_format", 1)
modparam("jsonrpcs", "transport", 2)
modparam("jsonrpcs", "fifo_name", "{folder}/fifo")"""

TABLES = {
    "version": "table_name(string) table_version(int)\naddress:6\ntrusted:6\n",
    "address": "id(int,auto) grp(int) ip_addr(string) mask(int) port(int) tag(string,null)\n"
    f"1:1:{ADDRESS}:32:0:trunk\n2:1:127.0.7.0:24:0:office\n3:2:{OTHER_GROUP}:32:0:\n"
    "4:1:127.0.0.0:9:0:half\n5:1:2001\\:db8\\:\\:9:128:5060:six\n",
    "trusted": "id(int,auto) src_ip(string) proto(string) from_pattern(string,null)"
    " ruri_pattern(string,null) tag(string,null) priority(int)\n"
    f"1:{TRUSTED}:any:::carrier:0\n2:2001\\:db8\\:\\:8:udp:::carrier:0\n3:any:any:::\\:0:0\n",
}


@pytest.fixture
def make(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> Callable[..., NodeUnderTest]:
    """Make a node with the two modules' tables in text files."""

    def made(jsonrpcs: str = JSONRPCS, **settings: object) -> NodeUnderTest:
        folder = tmp_path / "own"
        (folder / "db").mkdir(parents=True)
        for name, text in TABLES.items():
            (folder / "db" / name).write_text(text, encoding="utf-8")
        destinations(folder, f"1 sip:{DESTINATION}:5080;transport=udp 0 0", "7 sip:localhost 16 0")
        path = folder / "own.cfg"
        text = CONFIGURATION.replace("{jsonrpcs}", jsonrpcs)
        path.write_text(text.format(folder=folder, include=INCLUDE), encoding="utf-8")
        node = make_node(LISTED, configuration=path)
        node.write_settings(**settings)
        return node.start()

    return made


def destinations(folder: Path, *lines: str) -> None:
    """Write dispatcher's file."""
    text = "".join(f"{line}\n" for line in lines)
    (folder / "dispatcher.list").write_text(text, encoding="utf-8")


def come_through(node: NodeUnderTest, *sources: str) -> bool:
    """Tell whether each of them is answered."""
    return all(node.passes(source, timeout=1.0) for source in sources)


def allowed(node: NodeUnderTest, source: str) -> dict[str, str]:
    """Read what is in the store's allow list from a source, each with its reason."""
    db = sqlite3.connect(f"file:{node.folder}/state/store.db?mode=ro", uri=True)
    try:
        rows = db.execute(
            "SELECT count(*), reason FROM allow WHERE source = ? GROUP BY reason", (source,)
        )
        return {reason: count for count, reason in rows}
    finally:
        db.close()


def test_listed_peers_are_not_dropped(make: Callable[..., NodeUnderTest]) -> None:
    """Destinations, addresses, networks and trusted sources; nobody else."""
    node = make()
    wait_for(
        lambda: come_through(node, DESTINATION, ADDRESS, IN_SUBNET, TRUSTED, OTHER_GROUP),
        "that the peers come through",
        SOON,
    )
    assert node.is_dropped(NOBODY)
    # Half of the internet is no peer.
    (refused,) = node.events("trusted-refused")
    assert "network=127.0.0.0/9" in refused
    assert not node.events("trusted-unknown")
    wait_for(lambda: "set 7: localhost" in allowed(node, "dispatcher"), "the host name", SOON)
    assert set(allowed(node, "permissions")) == {
        *("group 1, trunk", "group 1, office", "group 2", "group 1, six", "trusted, carrier")
    }


def test_destination_comes_and_goes(make: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """What ``dispatcher.add`` and ``dispatcher.reload`` change is followed within a minute."""
    node = make()
    wait_for(lambda: come_through(node, DESTINATION), "that the destination comes through", SOON)
    assert node.is_dropped(LATER)
    node.kamailio.rpc("dispatcher.add", "4", f"sip:{LATER}:5060")
    wait_for(lambda: come_through(node, LATER), "that the new one comes through", SOON)
    destinations(tmp_path / "own", f"4 sip:{LATER} 0 0")
    node.kamailio.rpc("dispatcher.reload")
    wait_for(lambda: node.is_dropped(DESTINATION), "that the old one is dropped", SOON)
    assert come_through(node, LATER, ADDRESS)


def test_only_what_the_settings_name(make: Callable[..., NodeUnderTest]) -> None:
    """One module, and one group of it; a change is in force without a restart."""
    node = make(
        allow__from_kamailio=["permissions"],
        allow__permissions_groups=[2],
    )
    wait_for(lambda: come_through(node, OTHER_GROUP), "that group 2 comes through", SOON)
    assert all(map(node.is_dropped, (ADDRESS, IN_SUBNET, TRUSTED, DESTINATION)))
    node.write_settings(allow__from_kamailio=["dispatcher"], allow__permissions_groups=[])
    wait_for(lambda: come_through(node, DESTINATION), "that the destination comes through", SOON)
    wait_for(lambda: node.is_dropped(OTHER_GROUP), "that group 2 is dropped", SOON)


def test_without_jsonrpcs(make: Callable[..., NodeUnderTest]) -> None:
    """Nothing is allowed, one line says why, and what was known stays."""
    node = make(jsonrpcs="")
    wait_for(lambda: node.events("trusted-unknown"), "a line", SOON)
    assert node.is_dropped(DESTINATION)
    path = peers_path(node.folder / "runtime")
    wait_for(path.exists, "the file", SOON)
    assert json.loads(path.read_text("utf-8")) == {"dispatcher": None, "permissions": None}
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(node.events("trusted-unknown")) == 1


def test_reload_of_the_code(make: Callable[..., NodeUnderTest]) -> None:
    """After ``app_python.reload`` the list is kept and followed."""
    node = make()
    wait_for(lambda: come_through(node, DESTINATION), "that the destination comes through", SOON)
    node.kamailio.rpc("app_python.reload")
    wait_for(lambda: node.events("reload"), "the reload")
    node.kamailio.rpc("dispatcher.add", "4", f"sip:{LATER}:5060")
    wait_for(lambda: come_through(node, LATER), "that the new one comes through", SOON)
    assert come_through(node, DESTINATION)
