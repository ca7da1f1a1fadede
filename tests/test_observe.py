"""Dashboard and alerts ask for metrics that there are, by labels that they have, in PromQL that parses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from service.app import create_app
from service.envelope import Record
from service.metrics import STAGES, Metrics
from service.problems import PROBLEMS
from service.scrape import PATH
from service.timings import Timings
from tests.service.fakes import fake_engine

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE = yaml.safe_load((DOCKER.parent / "docker-compose.yml").read_text())
DASHBOARD = json.loads((DOCKER / "grafana" / "winnow.json").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
# Prometheus gives these to every series, or makes them itself.
GIVEN_LABELS = {"instance", "job"}
GIVEN = {"up": set(GIVEN_LABELS)}
GRAFANA = {"$__rate_interval": "5m", "$instance": ".*"}


def panels() -> list[Any]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    asked = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    for variable, value in GRAFANA.items():
        asked = [(title, expression.replace(variable, value)) for title, expression in asked]
    return asked + [(rule["alert"], rule["expr"]) for rule in ALERTS]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Labels of each sample that the service serves, with something counted in each family."""
    metrics = Metrics()
    metrics.gauges.model = lambda: {"name": "a", "version": "b", "provider": "c"}
    metrics.gauges.killed = lambda: {("decode", "cpu"): 1}
    timings = Timings()
    timings.cache_states = ("miss", "hit-redis")
    record = Record("1", "POST", "/separate", 503, 1.0, None, "busy", "/separate", 1, 1, timings)
    metrics.ended(record, "/separate")
    metrics.job_ended(timings, "succeeded")
    found = dict(GIVEN)
    for family in metrics.registry.collect():
        assert family.samples, family.name
        assert family.documentation
        for item in family.samples:
            found.setdefault(item.name, set(GIVEN_LABELS)).update(item.labels)
    return found


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every selector in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        below = getattr(node, name, None)
        if below is not None:
            yield from selectors(below)
    for below in getattr(node, "args", None) or ():
        yield from selectors(below)


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_an_expression_parses_and_asks_for_what_there_is(
    title: str, expression: str, known: dict[str, set[str]]
) -> None:
    found = list(selectors(promql_parser.parse(expression)))
    assert found and expression.count("winnow_") == sum(item.name.startswith("winnow_") for item in found)
    for selector in found:
        assert selector.name in known, selector.name
        assert {matcher.name for matcher in selector.matchers.matchers} <= known[selector.name], expression


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(known: dict[str, set[str]]) -> None:
    asked = {item.name for _, expression in expressions() for item in selectors(promql_parser.parse(expression))}
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in asked}
    ours = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        for name in known
        if name.startswith("winnow_") and not name.endswith("_created")
    }
    assert ours <= families, ours - families


def test_values_that_are_matched_can_occur() -> None:
    values = {
        "reason": {problem.kind for problem in PROBLEMS.values()},
        "route": {*create_app(engine=fake_engine()).openapi()["paths"], PATH},
        "stage": set(STAGES),
    }
    for _, expression in expressions():
        for selector in selectors(promql_parser.parse(expression)):
            for matcher in selector.matchers.matchers:
                if matcher.name in values:
                    assert set(matcher.value.split("|")) <= values[matcher.name], expression


def test_alerts_are_told_apart_and_say_what_is_the_matter() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names) >= 8
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        promql_parser.parse(f"metric[{rule.get('for', '1m')}]")  # a duration


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in panels()}) == len({panel["title"] for panel in panels()}) == len(panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (column, row)
            for column in range(place["x"], place["x"] + place["w"])
            for row in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


def test_compose_scrapes_the_port_that_it_opens_and_publishes_it_to_nobody() -> None:
    (job,) = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    service, port = target.split(":")
    assert COMPOSE["services"][service]["environment"]["WINNOW_METRICS_PORT"] == int(port)
    assert not any(str(port) in published for published in COMPOSE["services"][service]["ports"])
    for name in ("prometheus", "grafana"):
        assert COMPOSE["services"][name]["profiles"] == ["observe"]
        for volume in COMPOSE["services"][name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DOCKER.parent / source).exists(), source
