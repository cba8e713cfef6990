"""Grafana's dashboards as files: current, laid out, described. test_prometheus.py runs their queries."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.source.files import write, wrong
from tests.observability.prometheus import DEPLOY, selectors
from tests.observability.test_exposition import FAMILIES

FILES = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
BOARDS: list[dict[str, Any]] = [json.loads(file.read_text()) for file in FILES]
PANELS = [(board, panel) for board in BOARDS for panel in board["panels"] if panel["type"] != "row"]


def _name(value: object) -> str:
    return str(value.get("title", value.get("uid"))) if isinstance(value, dict) else str(value)


def test_the_files_are_current() -> None:
    assert wrong() == []


def test_a_file_that_is_not_current_is_told_and_put_right(tmp_path: Path) -> None:
    write(tmp_path)
    assert wrong(tmp_path) == []
    (tmp_path / "pipetrain-job.json").write_text("{}")
    (tmp_path / "pipetrain-overview.json").unlink()
    (tmp_path / "old.json").touch()
    assert {path.stem for path in wrong(tmp_path)} == {"pipetrain-job", "pipetrain-overview", "old"}
    write(tmp_path)
    assert wrong(tmp_path) == []


def test_there_is_one_of_all_jobs_and_one_of_a_pipeline() -> None:
    assert [file.stem for file in FILES] == ["pipetrain-job", "pipetrain-overview"]
    assert [board["uid"] for board in BOARDS] == [file.stem for file in FILES]
    job = BOARDS[0]
    variables = {variable["name"]: variable["type"] for variable in job["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "stage": "query"}
    rows = [panel["title"] for panel in job["panels"] if panel["type"] == "row"]
    assert rows == ["Health", "Throughput", "Pipeline", "Checkpoints and recoveries", "Memory", "Links"]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=_name)
def test_every_panel_has_a_unit_and_a_sentence(board: dict[str, Any], panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("board", BOARDS, ids=_name)
def test_panels_are_within_the_grid_and_never_overlap(board: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        own = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & own, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("board", BOARDS, ids=_name)
def test_every_query_reads_metrics_that_there_are(board: dict[str, Any]) -> None:
    known = {family.name for family in FAMILIES} | {"up", "scrape_duration_seconds"}
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [mark["target"]["expr"] for mark in board["annotations"]["list"]]
    for query in queries:
        names = [selector.partition("{")[0] for selector in selectors(query)]
        assert names, query
        for name in names:
            base = name
            for suffix in ("_bucket", "_sum", "_count"):
                base = base.removesuffix(suffix)
            assert name in known or base in known, query


def test_links_between_dashboards_lead_somewhere() -> None:
    uids = {board["uid"] for board in BOARDS}
    text = "".join(file.read_text() for file in FILES)
    for part in text.split('"/d/')[1:]:
        assert part.replace('"', "/").replace("?", "/").split("/")[0] in uids


def test_the_provisioning_fits_the_scraping() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = (entry for entry in prometheus["scrape_configs"] if entry["job_name"] == "pipetrain")
    interval = scrape.get("scrape_interval", prometheus["global"]["scrape_interval"])
    assert source["jsonData"]["timeInterval"] == interval
    assert scrape["honor_labels"] is True, "the label job of the metrics is the id of a job"
    assert [Path(file).name for file in prometheus["rule_files"]] == ["alerts.yml"]
