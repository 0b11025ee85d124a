"""The benchmark's part on the kernel's sets, small, in the namespaces that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from apiban.bench import firewall
from apiban.bench.firewall import IPSET, NFTABLES, PROCESSES, measure_lists
from apiban.bench.machine import BenchError


@pytest.mark.timeout(60)
def test_each_way_is_measured(tmp_path: Path) -> None:
    """With its load, its change and its restart; none of them costs nothing."""
    file = tmp_path / "run.json"
    subprocess.run(
        [sys.executable, "-m", "apiban.bench", "--quick", "--only", "firewall", "--json", file],
        check=True,
        capture_output=True,
        timeout=50,
    )
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["failures"] == []
    (found,) = report["parts"].values()
    assert set(found["load"]) == set(found["change"]) == {NFTABLES, IPSET, PROCESSES}
    assert set(found["restart"]) == {NFTABLES, IPSET}
    assert all(way["median"] > 0 for column in found.values() for way in column.values())
    assert found["load"][PROCESSES]["median"] > 10 * found["load"][NFTABLES]["median"]


def test_no_firewall_of_a_host_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a route leads out, nothing begins."""
    monkeypatch.setattr(firewall, "is_private", lambda: False)
    with pytest.raises(BenchError, match="private"):
        measure_lists(tmp_path / "lists", count=10, sampled=1, rounds=1, say=lambda _: None)
    assert not (tmp_path / "lists").exists()
