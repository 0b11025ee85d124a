"""Native configurations: the include file on Debian's stock file and on others' own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

LISTED, GOOD = "127.0.1.5", "127.0.2.1"
INCLUDE = SCRIPT.parents[1] / "kamailio" / "apiban-include.cfg"
STOCK = Path("/etc/kamailio/kamailio.cfg")

OWN = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
{before}
loadmodule "kex.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "ctl.so"
{modules}
include_file "{include}"
{routes}
request_route {{
    {first}
    sl_send_reply("200", "OK");
}}
"""


def configuration(
    folder: Path, *, before: str = "", modules: str = "", routes: str = "", first: str = ""
) -> Path:
    """Write a native configuration that answers every request with 200."""
    path = folder / "own.cfg"
    text = OWN.format(before=before, modules=modules, include=INCLUDE, routes=routes, first=first)
    path.write_text(text, encoding="utf-8")
    return path


def is_protected(node: NodeUnderTest) -> bool:
    """Tell whether the listed source is dropped and the good one served, on both transports."""
    return all(
        node.is_dropped(LISTED, transport) and node.passes(GOOD, transport)
        for transport in ("udp", "tcp")
    )


def test_debians_stock_file_without_an_edit(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """The include as kamailio-local.cfg beside the untouched stock file protects it."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "kamailio.cfg").write_bytes(STOCK.read_bytes())
    (folder / "kamailio-local.cfg").symlink_to(INCLUDE)
    node = make_node((LISTED,), configuration=folder / "kamailio.cfg").start()
    for transport in ("udp", "tcp"):
        assert node.is_dropped(LISTED, transport)
        # The stock routing answers what is not for a user of its own.
        assert node.ask(GOOD, transport).startswith(b"SIP/2.0 4")
    # Its log level is Debian's, and our lines are visible at it.
    assert node.events("page")
    assert node.events("first-drop")


def test_own_file(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """A small configuration with the whole include."""
    node = make_node((LISTED,), configuration=configuration(tmp_path)).start()
    assert is_protected(node)


def test_file_that_loads_rtimer(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """A configuration with an rtimer of its own leaves that part out."""
    path = configuration(
        tmp_path,
        before="#!define APIBAN_NO_RTIMER_MODULE",
        modules='loadmodule "rtimer.so"\n'
        'modparam("rtimer", "timer", "name=own;interval=1;mode=1;")\n'
        'modparam("rtimer", "exec", "timer=own;route=OWN")\n'
        'loadmodule "xlog.so"',
        routes='route[OWN] { xlog("L_NOTICE", "own timer\\n"); }',
    )
    node = make_node((LISTED,), configuration=path).start()
    assert is_protected(node)
    wait_for(lambda: any("own timer" in line for line in node.kamailio.log_lines()), "its timer")


def test_file_with_an_event_route(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """A configuration with its own core:msg-received calls ours from it."""
    path = configuration(
        tmp_path,
        before="#!define APIBAN_NO_EVENT_ROUTE",
        modules='loadmodule "xlog.so"',
        routes="event_route[core:msg-received] { route(APIBAN_RECEIVED);"
        ' xlog("L_NOTICE", "own route for $rcv(srcip)\\n"); }',
    )
    node = make_node((LISTED,), configuration=path).start()
    assert is_protected(node)
    own = [line for line in node.kamailio.log_lines() if "own route for" in line]
    assert any(GOOD in line for line in own)
    assert not any(LISTED in line for line in own)


def test_top_of_request_route(make_node: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    """Without the pre-parse route, the check in request_route is as silent."""
    path = configuration(
        tmp_path,
        before="#!define APIBAN_NO_EVENT_ROUTE\n#!define APIBAN_WITH_TCPOPS",
        modules='loadmodule "tcpops.so"',
        first="route(APIBAN_REQUEST);",
    )
    node = make_node((LISTED,), configuration=path).start()
    assert is_protected(node)
    assert re.search(r"transport=(udp|tcp)", node.events("first-drop")[0])


OWN_SCRIPT = """
import sys
sys.path.insert(0, {kemi!r})
import apiban_kemi
import KSR

class Own:
    def __init__(self):
        self.apiban = apiban_kemi.mod_init()
    def child_init(self, rank):
        return self.apiban.child_init(rank)
    def apiban_received(self, msg, *more):
        return self.apiban.apiban_received(msg)
    def apiban_tick(self, msg, *more):
        return self.apiban.apiban_tick(msg)
    def hello(self, msg, *more):
        KSR.sl.sl_send_reply(299, "Own")
        return 1

def mod_init():
    return Own()
"""


def test_file_with_a_python_script_of_its_own(
    make_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    """An operator's own script composes ours, and goes on answering."""
    script = tmp_path / "own_script.py"
    script.write_text(OWN_SCRIPT.format(kemi=str(SCRIPT.parent)), encoding="utf-8")
    path = configuration(
        tmp_path,
        before="#!define APIBAN_NO_PYTHON_MODULE",
        modules=f'loadmodule "app_python3.so"\nmodparam("app_python3", "load", "{script}")',
        first='python_exec("hello"); exit;',
    )
    node = make_node((LISTED,), configuration=path).start()
    assert node.is_dropped(LISTED)
    assert b" 299 Own" in node.ask(GOOD)
