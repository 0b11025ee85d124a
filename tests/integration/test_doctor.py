"""The doctor at a real Kamailio: well, and with each of its troubles."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apiban.alive import is_alive
from apiban.sync.report import read_report
from apiban.trial.kamailio import SCRIPT

from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

LISTED = "127.0.1.5"
APIBAN = SCRIPT.parents[1] / "bin" / "apiban"
INCLUDE = SCRIPT.parents[1] / "kamailio" / "apiban-include.cfg"
GROUP = 54321
MakeNode = Callable[..., NodeUnderTest]

OWN = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
{before}
loadmodule "kex.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "ctl.so"
include_file "{include}"
request_route {{
    sl_send_reply("200", "OK");
}}
"""


def doctor(node: NodeUnderTest, **more: Any) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Give the doctor's status, and its findings by check."""
    done = subprocess.run(
        [APIBAN, "doctor", "--json"],
        env=node.environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )
    assert done.stderr == ""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


def own_configuration(folder: Path, before: str = "") -> Path:
    """Write a native configuration with the include."""
    path = folder / "own.cfg"
    path.write_text(OWN.format(before=before, include=INCLUDE), encoding="utf-8")
    return path


def levels(found: dict[str, list[dict[str, Any]]]) -> dict[str, set[str]]:
    """Give what levels each check has."""
    return {check: {one["level"] for one in those} for check, those in found.items()}


def test_healthy_node(make_node: MakeNode) -> None:
    """The shipped edge is healthy: nothing fails, and the hook is on."""
    node = make_node((LISTED,)).start()
    wait_for((node.folder / "runtime" / "sync.json").exists, "the sync's report")
    before = node.board.total()
    status, found = doctor(node)
    assert status == 0, found
    said = levels(found)
    for check in ("key", "store", "list", "Kamailio", "modules", "allocator", "sync", "sync.lock"):
        assert said[check] == {"ok"}, found[check]
    assert said["hook"] == said["workers"] == {"ok"}
    assert f"udp:{node.target[0]}:{node.target[1]}" in found["hook"][0]["what"]
    # Of all that it sends, nothing comes further than to Kamailio.
    assert (node.board.total() - before).dropped == 0
    assert node.upstream.received == []


@pytest.mark.parametrize(
    ("before", "level"),
    [
        ("", "ok"),
        ("#!define APIBAN_WITH_FRONT", "ok"),
        ("#!define APIBAN_NO_EVENT_ROUTE", "fail"),
    ],
)
def test_native_configuration(make_node: MakeNode, tmp_path: Path, before: str, level: str) -> None:
    """The module is loaded, and the sync runs: only a message tells whether the hook is on."""
    path = own_configuration(tmp_path, before)
    node = make_node((LISTED,), configuration=path, options=()).start()
    wait_for((node.folder / "runtime" / "sync.json").exists, "the sync's report")
    status, found = doctor(node)
    assert levels(found)["hook"] == {level}
    assert status == (level == "fail")
    assert ("route(APIBAN_RECEIVED)" in found["hook"][0]["mend"]) == (level == "fail")
    # Both are of this Kamailio alone: it was started without the option, and without the front.
    assert levels(found)["allocator"] == {"warn"}
    assert len(found["modules"]) == (1 if "FRONT" in before else 2)


def test_hook_over_tcp(make_node: MakeNode) -> None:
    """A Kamailio without UDP is asked over TCP."""
    node = make_node((LISTED,))
    address = f"{node.target[0]}:{node.target[1]}"
    node = make_node((LISTED,), listen=[f"tcp:{address}"])
    node.start()
    _, found = doctor(node)
    assert levels(found)["hook"] == {"ok"}
    assert f"tcp:{address}" in found["hook"][0]["what"]


def test_kamailio_that_is_gone(make_node: MakeNode) -> None:
    """Its counters are still there; the doctor is not deceived, and no file is changed."""
    node = make_node((LISTED,)).start()
    wait_for((node.folder / "runtime" / "sync.json").exists, "the sync's report")
    node.kamailio.stop()
    report = read_report(node.folder / "runtime" / "sync.json")
    assert report is not None
    wait_for(lambda: not is_alive(report.pid), "the sync's end")
    status, found = doctor(node)
    assert status == 1
    said = levels(found)
    assert said["Kamailio"] == {"fail"}
    assert said["sync"] == said["sync.lock"] == {"note"}
    assert said["store"] == said["list"] == {"ok"}
    assert "hook" not in said


def test_bad_settings(make_node: MakeNode) -> None:
    """Each mistake is a finding."""
    node = make_node(())
    node.write_raw_settings('mode = "perhaps"\n[feed]\ninterval = 0\n')
    status, found = doctor(node)
    assert status == 1
    assert [one["level"] for one in found["settings"]] == ["fail", "fail"]


def test_feed_that_is_down(make_node: MakeNode) -> None:
    """The doctor and the sync both say that nobody is there."""
    node = make_node((LISTED,)).start()
    node.api.stop()
    wait_for(lambda: node.events("feed-trouble"), "the sync's word")
    status, found = doctor(node)
    assert status == 1
    assert "Connection refused" in found["feed"][-1]["what"]


def test_member_of_the_group(make_node: MakeNode, tmp_path: Path) -> None:
    """Without root most of it works, and what does not is a note, never a fault."""
    node = make_node((LISTED,)).start()
    wait_for((node.folder / "runtime" / "sync.json").exists, "the sync's report")
    above = [path for path in tmp_path.parents if path.is_relative_to(tempfile.gettempdir())]
    for path in (tmp_path, *above[:-1], node.folder):
        path.chmod(path.stat().st_mode | 0o011)
    for path in (node.settings_file, *(node.folder / "state").iterdir()):
        os.chown(path, 0, GROUP)
    for name in ("state", "runtime"):
        os.chown(node.folder / name, 0, GROUP)
    for path in (node.folder / "runtime").iterdir():
        os.chown(path, 0, GROUP)
    status, found = doctor(node, user=65534, group=65534, extra_groups=[GROUP])
    assert status == 0, found
    said = levels(found)
    assert said["store"] == said["list"] == said["sync"] == said["sync.lock"] == {"ok"}
    assert said["hook"] == {"note"}
    assert "root" in found["hook"][0]["mend"]
