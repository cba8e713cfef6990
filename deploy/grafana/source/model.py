"""A dashboard as data, and what Grafana makes of it: JSON of its dashboard schema.

Plain dataclasses and no library: the six kinds of panels that are used take fewer lines than a generator's calls would,
and the JSON that is mounted depends on nothing that is released elsewhere.
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
    """PromQL. `instant` for the present value alone, `form` is time_series, table or heatmap."""

    expr: str
    legend: str = ""
    instant: bool = False
    form: str = "time_series"

    def json(self, index: int) -> Json:
        """As a panel's target."""
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
    """One panel. `kind` is Grafana's name of it, `unit` one of its units; width and height in cells of its grid."""

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
        """At a place of the grid."""
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
    """A heading, and the panels under it, laid out from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Choice:
    """A variable that a user chooses: values of a label, as PromQL's `label_values` gives them."""

    name: str
    label: str
    query: str
    many: bool = False

    def json(self) -> Json:
        """As a variable that is asked for anew when the time range changes."""
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
    """An annotation: drawn over all panels when `expr` is above zero, or at its value in ms where `value_is_time`."""

    name: str
    expr: str
    text: str
    color: str
    value_is_time: bool = False

    def json(self) -> Json:
        """As an annotation of Prometheus."""
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
    """One dashboard. `uid` is the last part of its file's name and of its address."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    choices: Sequence[Choice] = ()
    marks: Sequence[Mark] = ()
    links: Sequence[Json] = ()

    def json(self) -> Json:
        """The whole of it."""
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
