"""What xhttp_prom holds, and what the configuration declares for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kamailio_kemi_stubs.fake import FakeKsr

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "kamailio" / "prometheus" / "apiban.rules.yml"
DASHBOARD = ROOT / "kamailio" / "grafana" / "apiban.json"


class Prom:
    """Takes the place of xhttp_prom: numbers go by their name, or by it and the label's value."""

    def __init__(self) -> None:
        self.ksr = FakeKsr("5.6")
        self.counters: dict[Any, int] = {}
        self.gauges: dict[Any, float] = {}
        self.refuses: set[str] = set()
        self.ksr.on("xhttp_prom.counter_inc_l0", self._count)
        self.ksr.on("xhttp_prom.counter_inc_l1", self._count)
        self.ksr.on("xhttp_prom.gauge_set_l0", self._set)
        self.ksr.on("xhttp_prom.gauge_set_l1", self._set)

    def _count(self, name: str, number: int, *label: str) -> int:
        if name in self.refuses or number < 0:
            return -1
        key = (name, *label) if label else name
        self.counters[key] = self.counters.get(key, 0) + number
        return 1

    def _set(self, name: str, text: str, *label: str) -> int:
        if name in self.refuses:
            return -1
        self.gauges[(name, *label) if label else name] = float(text)
        return 1

    def types(self) -> dict[str, str]:
        """Give the type of each metric that was pushed."""
        return dict.fromkeys(map(_name, self.counters), "counter") | dict.fromkeys(
            map(_name, self.gauges), "gauge"
        )


def _name(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else key[0]


def declared() -> dict[str, str]:
    """Give the type of each metric that the configuration declares, by its name."""
    text = (ROOT / "kamailio" / "apiban-metrics.cfg").read_text(encoding="utf-8")
    found = re.findall(r'^modparam\("xhttp_prom", "prom_(\w+)", "name=(\w+)', text, re.MULTILINE)
    assert len(dict(map(reversed, found))) == len(found)  # type: ignore[arg-type]
    return {name: kind for kind, name in found}


def metrics_in(text: str) -> set[str]:
    """Give the names of our metrics in a query, or in many."""
    return set(re.findall(r"\bapiban_\w+", text))


def watched() -> set[str]:
    """Give the metrics that the alert rules and the dashboard name anywhere."""
    return {
        name for path in (RULES, DASHBOARD) for name in metrics_in(path.read_text(encoding="utf-8"))
    }
