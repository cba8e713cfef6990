"""Dashboards as data, and their JSON in Grafana's dashboard schema.

These are plain dataclasses without a library: the few kinds of panels in use take fewer lines than calls of a generator
would, and the JSON depends on no other project's releases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
SCHEMA_VERSION = 39  # Grafana 11's; newer ones read it
COLUMNS = 24
_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """A PromQL query. `instant`: only the present value. `form` is time_series, table or heatmap."""

    expr: str
    legend: str = ""
    instant: bool = False
    form: str = "time_series"

    def json(self, index: int) -> Json:
        """Return the query as the target of a panel."""
        return {
            "refId": "ABCDEFGHIJ"[index],
            "datasource": _SOURCE,
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "instant": self.instant,
            "range": not self.instant,
            "format": self.form,
        }


@dataclass(frozen=True)
class Panel:
    """A panel. `kind` is Grafana's name of the panel type, `unit` one of Grafana's units; width and height are in cells
    of Grafana's grid."""

    title: str
    description: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()

    def json(self, number: int, x: int, y: int) -> Json:
        """Return the panel at a place of the grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": _SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [query.json(index) for index, query in enumerate(self.queries)],
            "options": dict(self.options),
            "fieldConfig": {
                "defaults": {"unit": self.unit, "custom": dict(self.custom), **self.defaults},
                "overrides": list(self.overrides),
            },
            "transformations": list(self.transformations),
        }


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it, from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Choice:
    """A variable that the user chooses among the values of a label (Grafana's `label_values`)."""

    name: str
    label: str
    query: str
    many: bool = False

    def json(self) -> Json:
        """Return it as a variable whose values are queried again when the time range changes."""
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": _SOURCE,
            "query": {"qryType": 1, "query": self.query, "refId": self.name},
            "definition": self.query,
            "refresh": 2,
            "sort": 3 if self.many else 0,
            "multi": self.many,
            "includeAll": self.many,
            "allValue": ".*" if self.many else None,
            "current": {"text": ["All"], "value": ["$__all"]} if self.many else {},
        }


@dataclass(frozen=True)
class Mark:
    """An annotation over all panels, drawn when `expr` is above zero or, with `value_is_time`, at its value in ms."""

    name: str
    expr: str
    text: str
    color: str
    value_is_time: bool = False

    def json(self) -> Json:
        """Return it as an annotation with Prometheus as its data source."""
        return {
            "name": self.name,
            "enable": True,
            "datasource": _SOURCE,
            "iconColor": self.color,
            "target": {"refId": "Anno", "expr": self.expr, "interval": ""},
            "titleFormat": self.name,
            "textFormat": self.text,
            "useValueForTime": self.value_is_time,
        }


@dataclass(frozen=True)
class Dashboard:
    """A dashboard. `uid` is the name of its file, without .json, and a part of its address."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = ()
    marks: Sequence[Mark] = ()
    links: Sequence[Json] = ()

    def json(self) -> Json:
        """Return the whole dashboard."""
        source = {
            "type": "datasource",
            "name": "datasource",
            "label": "Prometheus",
            "query": "prometheus",
            "current": {},
        }
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["pipetrain"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "5s",
            "time": {"from": "now-15m", "to": "now"},
            "timezone": "",
            "links": list(self.links),
            "templating": {"list": [source, *(choice.json() for choice in self.choices)]},
            "annotations": {"list": [mark.json() for mark in self.marks]},
            "panels": _laid_out(self.rows),
        }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    panels: list[Json] = []
    y = 0
    for row in rows:
        grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        heading = {
            "id": len(panels) + 1,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": grid,
            "panels": [],
        }
        panels.append(heading)
        x, y, line = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line = 0, y + line, 0
            panels.append(panel.json(len(panels) + 1, x, y))
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return panels
