"""The page for those who come from the published recipe, step by step, as it stands there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.support.api import KEY
from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

CODE = SCRIPT.parents[1]
DOCUMENT = CODE / "docs" / "recipe.md"
LISTED, GOOD = "127.0.1.5", "127.0.2.1"

MODULES = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
max_while_loops=250
loadmodule "kex.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "ctl.so"
loadmodule "htable.so"
loadmodule "rtimer.so"
"""
# The recipe's sync, with its own names of timer, route and tables; its interval is a second.
SYNC = """
modparam("rtimer", "timer", "name=apiban;interval=1;mode=1;")
modparam("rtimer", "exec", "timer=apiban;route=APIBAN")
route[APIBAN] {
    $var(url) = "%sbanned";
    if ($sht(apibanctl=>ID) != 0) {
        $var(url) = $var(url) + "/" + $sht(apibanctl=>ID);
    }
    http_client_query("$var(url)", "$var(page)");
    if ($rc != 200) {
        exit;
    }
    jansson_array_size("ipaddress", "$var(page)", "$var(size)");
    $var(at) = 0;
    while ($var(at) < $var(size)) {
        jansson_get("ipaddress[$var(at)]", "$var(page)", "$var(address)");
        $sht(apiban=>$var(address)) = 1;
        $var(at) = $var(at) + 1;
    }
    jansson_get("ID", "$var(page)", "$var(id)");
    $sht(apibanctl=>ID) = $var(id);
}
"""


def blocks(language: str) -> list[str]:
    """Give the page's blocks in a language."""
    text = DOCUMENT.read_text(encoding="utf-8").replace("/usr/lib/apiban", str(CODE))
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def settings(number: int, key_file: Path) -> dict[str, Any]:
    """Give the settings of a step of the page, for ``write_settings``."""
    key_file.write_text(KEY, encoding="ascii")
    key_file.chmod(0o600)
    read = tomllib.loads(blocks("toml")[number])
    flat: dict[str, Any] = {"mode": read.pop("mode")}
    for section, values in read.items():
        flat |= {f"{section}__{name}": value for name, value in values.items()}
    return {**flat, "feed__key_file": str(key_file)}


def in_table(node: NodeUnderTest) -> dict[str, str]:
    """Give what ``kamcmd htable.dump apiban`` shows."""
    text = node.kamailio.rpc("htable.dump", "apiban")
    return dict(re.findall(r"name: (\S+)\s+value: (\S+)", text))


@pytest.fixture
def make(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> Callable[..., NodeUnderTest]:
    """Make a node from the recipe's lines and the page's."""

    def made(step: int, *, with_sync: bool) -> NodeUnderTest:
        include, tables, check = blocks("")
        path = tmp_path / "own.cfg"
        node = make_node((LISTED, "127.0.1.6"), configuration=path)
        del node.settings["feed.key"]
        node.write_settings(**settings(step, tmp_path / "key"))
        sync = 'loadmodule "http_client.so"\nloadmodule "jansson.so"\n' if with_sync else ""
        sync += SYNC % f"{node.api.url}{KEY}/" if with_sync else ""
        route = f'request_route {{\n{check}    sl_send_reply("200", "OK");\n}}\n'
        path.write_text(MODULES + tables + sync + include + route, encoding="utf-8")
        return node

    return made


def test_side_by_side(make: Callable[..., NodeUnderTest]) -> None:
    """The recipe drops as before, ours says what it would do; then ours drops."""
    node = make(0, with_sync=True).start()
    wait_for(lambda: in_table(node) == {LISTED: "1", "127.0.1.6": "1"}, "the recipe's list")
    assert not node.ask(LISTED, timeout=0.5)
    assert node.passes(GOOD)
    wait_for(lambda: node.board.total().would_drop >= 1, "that we would have dropped it")
    assert node.board.total().dropped == 0
    assert len(in_table(node)) == 2
    node.write_settings(mode="enforce")
    wait_for(lambda: node.events("mode"), "the mode")
    assert node.is_dropped(LISTED)
    assert node.passes(GOOD)
    assert len(in_table(node)) == 2


def test_without_its_sync(make: Callable[..., NodeUnderTest]) -> None:
    """Its check and kamcmd work on what the mirror puts in; the last step needs neither."""
    node = make(1, with_sync=False).start()
    wait_for(lambda: in_table(node) == {LISTED: "1", "127.0.1.6": "1"}, "our list in the table")
    assert "value: 1" in node.kamailio.rpc("htable.get", "apiban", f"s:{LISTED}")
    assert node.is_dropped(LISTED)
    assert node.passes(GOOD)
    # In the modes that drop nothing the check lets everybody through, too.
    node.write_settings(mode="shadow")
    wait_for(lambda: node.passes(LISTED, timeout=0.5), "that the check lets it through", 5)
    assert not in_table(node)
    node.write_settings(mode="enforce")
    wait_for(lambda: len(in_table(node)) == 2, "the list again")
    node.write_settings(htable__mirror="")
    wait_for(lambda: not in_table(node), "that the table is left empty")
    assert node.is_dropped(LISTED)


def test_the_check_alone_drops(make: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """Where our hook is not on, the operator's check has the list by the mirror."""
    node = make(1, with_sync=False)
    path = tmp_path / "own.cfg"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("#!define APIBAN_WITH_FRONT", "#!define APIBAN_NO_EVENT_ROUTE"))
    node.start()
    wait_for(lambda: len(in_table(node)) == 2, "our list in the table")
    assert not node.ask(LISTED, timeout=0.5)
    assert node.passes(GOOD)
    assert "value: 1" in node.kamailio.rpc("htable.get", "apibanctl", "s:blocks")
