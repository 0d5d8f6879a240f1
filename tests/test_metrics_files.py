"""The files for Prometheus and Grafana: sound by promtool, and of metrics that lbmux has."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lbmux.api.answers import Overload
from lbmux.metrics.families import Reading, exposition
from lbmux.metrics.loop_histograms import LoopHistograms
from tests.linux.inside import Inside, agent_with_a_flow, client

ROOT = Path(__file__).parents[1]
ALERTS, DASHBOARD = ROOT / "prometheus" / "alerts.yml", ROOT / "grafana" / "lbmux.json"
SELECTOR = re.compile(r"\b(lbmux_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
FROM_PROMETHEUS = {"instance", "job"}
FIXED = {"reason", "result", "state"}
"""Labels whose values do not depend on a configuration."""


def known() -> dict[str, dict[str, set[str]]]:
    """Each metric's labels, and the values that they have."""
    text = exposition(readings()["mux"]).decode()
    labels_by_metric: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = labels_by_metric.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return labels_by_metric


def alert_expressions() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return listed


def dashboard_expressions() -> list[str]:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    queries = [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    return queries + [target["expr"] for panel in panels() for target in panel.get("targets", [])]


def strangers(expressions: list[str]) -> Iterator[str]:
    """Yield what the expressions name and lbmux does not have."""
    metrics = known()
    for expression in expressions:
        for name, matchers in SELECTOR.findall(expression):
            if name not in metrics:
                yield name
                continue
            for label, operator, value in MATCHER.findall(matchers):
                values = metrics[name].get(label)
                if label not in FROM_PROMETHEUS and values is None:
                    yield f"{name}: {label}"
                elif label in FIXED and operator in ("=", "!=") and value not in metrics[name][label]:
                    yield f"{name}: {label}={value}"


def promtool(*arguments: str, text: str = "") -> str:
    """Return promtool's output; raise AssertionError if it reports a fault."""
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=ALERTS.parent, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_check_finds_metrics_labels_and_values_that_are_not_there() -> None:
    wrong = ['lbmux_no + lbmux_flows{client="x"}', 'lbmux_lookups_total{result="fool"}', 'lbmux_bgp_up{instance="a"}']
    assert [*strangers(wrong)] == ["lbmux_no", "lbmux_flows: client", "lbmux_lookups_total: result=fool"]


def test_alerts_use_existing_metrics() -> None:
    expressions = alert_expressions()
    assert len(expressions) >= 9 and not [*strangers(expressions)]


def readings() -> dict[str, Reading]:
    """A mux's and an agent's, with lines in every family."""
    inside = Inside()
    inside.send(client())
    mux = Reading(
        inside.snapshot, ring_dropped=1, loop_histograms=LoopHistograms(), peers={"10.0.1.1": ("established", "")},
        overload=Overload(None, "", 0),
    )  # fmt: skip
    return {"mux": mux, "agent": Reading(agent_with_a_flow(), loop_histograms=LoopHistograms())}


@pytest.mark.parametrize("program", ["mux", "agent"])
def test_promtool_finds_no_fault_with_the_metrics(program: str) -> None:
    """Names, types, help and units by the conventions: it says nothing at all then."""
    assert promtool("check", "metrics", text=exposition(readings()[program]).decode()) == ""


@pytest.mark.parametrize("name", ["lbmux_x", "lbmux_x_total"])
def test_promtool_reports_a_bad_metric(name: str) -> None:
    """One counter is badly named and has no help, the other only lacks help."""
    with pytest.raises(AssertionError, match=name):
        promtool("check", "metrics", text=f"# TYPE {name} counter\n{name} 1\n")


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", ALERTS.name)


def test_promtool_takes_the_configuration() -> None:
    promtool("check", "config", "prometheus.yml")


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tried() -> None:
    names = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text())["tests"]
    assert names == {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}


def test_the_dashboard_uses_existing_metrics() -> None:
    expressions = dashboard_expressions()
    assert not [*strangers(expressions)]


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for expression in dashboard_expressions() for name, _ in SELECTOR.findall(expression)}
    assert shown == set(known())


def test_the_dashboards_expressions_are_valid(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(queries)
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "panels.yml"))


def test_panels_are_side_by_side_with_their_own_scales() -> None:
    places = [panel["gridPos"] for panel in panels()]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells) and all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in panels()}) == len(places)
