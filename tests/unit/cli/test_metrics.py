"""``apiban metrics``."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.prom import declared
from tests.unit.cli.node import NodeOnHost

LISTED = "198.51.100.7"


def numbers(node: NodeOnHost) -> dict[tuple[str, ...], float]:
    """Give each number by its name and its label's value."""
    text = node.run("metrics").out
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_numbers_without_kamailio(node: NodeOnHost) -> None:
    """Of the list, the sync and the firewall."""
    node.feed_lists(LISTED, "2001:db8::7")
    node.sync_reports()
    node.firewall_reports(banned_ipv4=1, dropped_ipv6=123456789012345, generation=7)
    found = numbers(node)
    assert found["apiban_firewall_up",] == 1
    assert found["apiban_firewall_entries", "ipv4"] == 1
    assert found["apiban_firewall_dropped_packets_total", "ipv6"] == 123456789012345
    assert found["apiban_firewall_last_check_timestamp_seconds",] == node.clock.now()
    assert found["apiban_list_entries", "apiban"] == 2
    assert found["apiban_sync_running",] == 1
    assert found["apiban_list_generation",] == 0


def test_published_list_counts(node: NodeOnHost) -> None:
    """Its ranges, its mode and its time are what the durable file says."""
    node.feed_lists(LISTED, "2001:db8::7")
    node.kamailio_starts()
    node.publish()
    found = numbers(node)
    assert found["apiban_list_generation",] == 1
    assert found["apiban_list_ranges", "ipv6"] == 1
    assert found["apiban_mode", "enforce"] == 1
    assert not [name for name, *_ in found if "firewall" in name]
    assert found["apiban_sync_running",] == 0


def test_names_and_types_are_those_of_kamailio(node: NodeOnHost) -> None:
    """So that alerts and the dashboard fit both; each name is typed once."""
    node.feed_lists(LISTED)
    node.kamailio_starts()
    node.publish()
    node.sync_reports()
    node.firewall_reports()
    typed = re.findall(r"^# TYPE (\w+) (\w+)$", node.run("metrics").out, re.MULTILINE)
    assert len(dict(typed)) == len(typed) > 25
    assert dict(typed).items() <= declared().items()


def test_file_is_put_whole_for_everybody(node: NodeOnHost) -> None:
    """node-exporter is another user; where it cannot be put that is one line."""
    node.firewall_reports()
    file = node.folder / "apiban.prom"
    assert node.run("metrics", "--output", str(file)).out == ""
    assert file.read_text() == node.run("metrics").out
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    done = node.run("metrics", "--output", str(node.folder / "no" / "apiban.prom"))
    assert (done.status, len(done.err.splitlines())) == (1, 1)
    assert not [path for path in node.folder.iterdir() if path.name.endswith(".new")]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus has it")
def test_promtool_takes_it(node: NodeOnHost) -> None:
    """But for the help texts, which the collector adds."""
    node.feed_lists(LISTED)
    node.sync_reports()
    node.firewall_reports()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=node.run("metrics").out,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = (done.stdout + done.stderr).splitlines()
    assert [line for line in complaints if line and "no help text" not in line] == []
