"""What an operator watches with: log lines, alert rules and the dashboard name what there is."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.log import EVENTS

from tests.support.prom import DASHBOARD, ROOT, RULES, declared, metrics_in, watched

DOCS = ROOT / "docs"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="Debian's prometheus has it"
)


# Log lines -------------------------------------------------------------------------------------


def rows() -> dict[str, list[str]]:
    """Give the cells of each event's row: level, fields, when, what to do."""
    text = (DOCS / "log-lines.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", text, re.MULTILINE)
    return {event: cells.split(" | ") for event, cells in lines}


def said() -> Iterator[tuple[str, set[str]]]:
    """Give the event and the field names of each line that the code writes in plain sight."""
    for path in (ROOT / "kemi" / "apiban").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            if name in {"_log", "log", "say"}:
                fields = {word.arg for word in node.keywords if word.arg is not None}
                for part in ast.walk(node.args[0]):  # it may be one event of two
                    if isinstance(part, ast.Constant) and part.value in EVENTS:
                        yield part.value, fields


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_tells_what_to_do(event: str) -> None:
    """Its row has the level, the fields, when it comes, and what an operator does about it."""
    cells = rows()[event]
    assert len(cells) == 4, cells
    assert cells[0] == EVENTS[event]
    assert all(cell.strip() for cell in cells)


def test_every_field_is_documented() -> None:
    """No line has a field that its row does not name."""
    documented = {event: set(re.findall(r"\w+", cells[1])) for event, cells in rows().items()}
    found = list(said())
    assert len(found) > 30
    assert [(event, fields - documented[event]) for event, fields in found] == [
        (event, set()) for event, _ in found
    ]


# Names -----------------------------------------------------------------------------------------


def rules() -> list[dict[str, str]]:
    """Give each alert's parts that stand on lines of their own, as text."""
    blocks = re.split(r"^      - ", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [
        dict(re.findall(r"^ *(alert|expr|for|summary|labels): (.*)$", block, re.MULTILINE))
        | {"description": " ".join(block.partition("description: >-")[2].split())}
        for block in blocks
    ]


def panels() -> list[dict[str, Any]]:
    """Give the dashboard's panels."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def test_alerts_and_panels_use_metrics_that_there_are() -> None:
    """Every name is declared for Kamailio."""
    used = {name for rule in rules() for name in metrics_in(rule["expr"])}
    shown = {
        name
        for panel in panels()
        for target in panel["targets"]
        for name in metrics_in(target["expr"])
    }
    assert {"apiban_drift", "apiban_feed_state", "apiban_faults_total"} <= used & shown
    assert used | shown <= watched() <= set(declared())


# Alerts ----------------------------------------------------------------------------------------


def test_every_alert_says_what_to_do() -> None:
    """A summary, a severity, a description; and a row in docs/metrics.md with the same time."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    shown = {
        name: (severity, lasts)
        for name, severity, lasts in re.findall(
            r"^\| `(Apiban\w+)` \| (\w+) \| .* \| ([\w ]+) \|$", text, re.MULTILINE
        )
    }
    there = {}
    for rule in rules():
        severity = re.fullmatch(r"\{severity: (critical|warning|info)\}", rule["labels"])
        assert severity is not None, rule
        assert "$labels." in rule["summary"], rule
        assert len(rule["description"]) > 60, rule
        there[rule["alert"]] = (severity[1], rule.get("for", "at once"))
    assert there == shown


def test_commands_that_alerts_name_are_verbs() -> None:
    """An operator who is told to run something can."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8") + RULES.read_text(encoding="utf-8")
    main = (ROOT / "kemi" / "apiban" / "cli" / "main.py").read_text(encoding="utf-8")
    verbs = set(re.findall(r'[`"]apiban ([a-z]+)', text))
    assert verbs
    assert {verb for verb in verbs if f'"{verb}"' not in main} == set()


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    """As Prometheus itself would."""
    done = subprocess.run(
        ["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@needs_promtool
def test_promtool_takes_the_labs_configuration() -> None:
    """It finds the rules where the image has them."""
    file = ROOT / "kamailio" / "prometheus.yml"
    done = subprocess.run(
        ["promtool", "check", "config", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout
    image = (ROOT / "kamailio" / "Dockerfile").read_text(encoding="utf-8")
    assert f"COPY {RULES.relative_to(ROOT)} /etc/prometheus/{RULES.parent.name}/" in image


# A node that is well, minute by minute.
WELL = {
    "apiban_passed_packets_total": "0+30x3000",
    "apiban_dropped_packets_total": "0+5000x3000",
    "apiban_would_drop_packets_total": "0x3000",
    "apiban_faults_total": "3x3000",
    "apiban_workers_behind": "0x3000",
    'apiban_mode{mode="enforce"}': "1x3000",
    'apiban_list_ranges{family="ipv4"}': "4123x3000",
    'apiban_list_ranges{family="ipv6"}': "0x3000",
    'apiban_drift{between="store-list"}': "0x3000",
    'apiban_feed_state{state="ok"}': "1x3000",
    'apiban_feed_state{state="unknown"}': "0x3000",
    'apiban_feed_state{state="outage"}': "0x3000",
    "apiban_sync_running": "1x3000",
    "apiban_sync_report_timestamp_seconds": "0+60x3000",
    'apiban_sync_failing{part="store"}': "0x3000",
    "apiban_sync_last_success_timestamp_seconds": "0+60x3000",
    "apiban_sync_held_passes": "0x3000",
    'apiban_sync_held_back{why="growth-held"}': "0x3000",
    "apiban_sync_requests_left": "0 4 2x3000",
    "apiban_firewall_up": "1x3000",
    "apiban_firewall_failing": "0x3000",
    "apiban_firewall_last_check_timestamp_seconds": "0+60x3000",
    "apiban_firewall_healed_total": "0x100 1x2900",
}
FROM_30 = "0x29 1x3000"  # from minute 30 on
UNTIL_30 = "1x29 0x3000"
STOPPED = "0+60x30 1800x3000"

# What is wrong, the alert that tells so, and the minutes at which it does not yet, and does.
TROUBLES: dict[str, tuple[dict[str, str], str, int, int]] = {
    "hook-off": (
        {
            "apiban_passed_packets_total": "0+30x60 1800x3000",
            "apiban_dropped_packets_total": "9x3000",
        },
        "ApibanNothingJudged",
        70,
        85,
    ),
    "empty": ({'apiban_list_ranges{family="ipv4"}': "0x3000"}, "ApibanListEmpty", 14, 16),
    "shadow": ({'apiban_mode{mode="enforce"}': "0x3000"}, "ApibanModeNotEnforce", 1430, 1450),
    "fault": ({"apiban_faults_total": "3x29 4x3000"}, "ApibanFaults", 29, 31),
    "behind": ({"apiban_workers_behind": FROM_30}, "ApibanWorkersBehind", 31, 33),
    "drift": ({'apiban_drift{between="store-list"}': FROM_30}, "ApibanDrift", 30, 32),
    "no-sync": ({"apiban_sync_running": UNTIL_30}, "ApibanSyncNotRunning", 34, 36),
    "silent-sync": (
        {"apiban_sync_report_timestamp_seconds": STOPPED},
        "ApibanSyncNotRunning",
        39,
        42,
    ),
    "full-disk": ({'apiban_sync_failing{part="store"}': FROM_30}, "ApibanStoreFailing", 34, 36),
    "stale": (
        {"apiban_sync_last_success_timestamp_seconds": STOPPED},
        "ApibanFeedStale",
        94,
        97,
    ),
    "outage": ({'apiban_feed_state{state="outage"}': FROM_30}, "ApibanFeedFailing", 44, 46),
    "held-pass": ({"apiban_sync_held_passes": FROM_30}, "ApibanPassHeld", 39, 41),
    "growth": ({'apiban_sync_held_back{why="growth-held"}': FROM_30}, "ApibanGrowthHeld", 39, 41),
    "firewall-down": ({"apiban_firewall_up": UNTIL_30}, "ApibanFirewallDown", 31, 33),
    "firewall-trouble": ({"apiban_firewall_failing": FROM_30}, "ApibanFirewallFailing", 31, 33),
    "firewall-blind": (
        {"apiban_firewall_last_check_timestamp_seconds": STOPPED},
        "ApibanFirewallFailing",
        36,
        39,
    ),
    "firewall-mended": (
        {"apiban_firewall_healed_total": "0x29 0+1x2970"},
        "ApibanFirewallMended",
        34,
        37,
    ),
    "budget": ({"apiban_sync_requests_left": "2x29 0x3000"}, "ApibanBudgetExhausted", 63, 67),
}


def play(folder: Path, series: dict[str, str], expected: dict[int, list[str]]) -> str:
    """Play the rules over these series; give what differs from the alerts expected by minute."""
    play = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{minute}m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts
                        ],
                    }
                    for minute, alerts in expected.items()
                ],
            }
        ],
    }
    file = folder / "play.yml"
    file.write_text(json.dumps(play), encoding="utf-8")  # JSON is YAML
    done = subprocess.run(
        ["promtool", "test", "rules", file], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@needs_promtool
def test_no_alert_on_a_node_that_is_well(tmp_path: Path) -> None:
    """For two days."""
    assert play(tmp_path, WELL, {minute: [] for minute in (20, 100, 1500, 2900)}) == ""


@needs_promtool
@pytest.mark.parametrize("trouble", TROUBLES)
def test_alert(tmp_path: Path, trouble: str) -> None:
    """That one alone, and not before its time."""
    changes, alert, before, after = TROUBLES[trouble]
    assert play(tmp_path, {**WELL, **changes}, {before: [], after: [alert]}) == ""


@needs_promtool
def test_every_alert_is_played(tmp_path: Path) -> None:
    """None is left out above; and the play itself can fail."""
    assert {alert for _, alert, _, _ in TROUBLES.values()} == {rule["alert"] for rule in rules()}
    assert "FAILED" in play(tmp_path, WELL, {100: ["ApibanFaults"]})


# The dashboard ---------------------------------------------------------------------------------


def test_every_panel_has_title_unit_and_query() -> None:
    """And a place of its own."""
    places: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert metrics_in(target["expr"]), panel["title"]
            assert target["expr"].count("(") == target["expr"].count(")")
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 10


def test_dashboard_takes_any_datasource() -> None:
    """It is chosen at the import: no panel names one of somebody's own."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    variables = {one["name"]: one["type"] for one in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    sources = {
        part["datasource"]["uid"] for panel in panels() for part in (panel, *panel["targets"])
    }
    assert sources == {"${datasource}"}
    assert "id" not in dashboard


@needs_promtool
def test_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    """Prometheus would take each as a rule, with Grafana's variables filled in."""
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = [
        query.replace("$__rate_interval", "1m").replace("$instance", ".*") for query in queries
    ]
    file = tmp_path / "queries.yml"
    records = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(filled)]
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": records}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
