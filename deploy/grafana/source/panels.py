"""The kinds of panels of the dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.grafana.source.model import Json, Panel, Query

_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}
_NO_TIME = {"Time": True}
HEAT = {"mode": "continuous-BlYlRd"}


def lines(
    title: str, description: str, *queries: Query, unit: str = "short", stack: str = "", width: int = 8, **defaults: Any
) -> Panel:
    """Return a panel of lines over time. `stack` is "", "normal" or "percent"; `defaults` are field settings, such as
    min and max."""
    custom: Json = {"lineWidth": 1, "fillOpacity": 60 if stack else 8, "showPoints": "never"}
    if stack:
        custom["stacking"] = {"mode": stack, "group": "A"}
    options = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
    return Panel(title, description, queries, "timeseries", unit, width, 8, options, custom, defaults)


def number(
    title: str,
    description: str,
    query: Query,
    unit: str = "short",
    *,
    width: int = 4,
    text: str = "value",
    words: Mapping[str, tuple[str, str]] | None = None,
    limits: Sequence[tuple[float | None, str]] = ((None, "text"),),
) -> Panel:
    """Return a panel with one large value. `words` maps values to (word, colour), `limits` are colours from each value
    on; with `text` "name" the panel shows the legend instead of the value."""
    mappings = [
        {"type": "value", "options": {value: {"text": word, "color": color, "index": index}}}
        for index, (value, (word, color)) in enumerate((words or {}).items())
    ]
    defaults = {
        "mappings": mappings,
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in limits]},
        "color": {"mode": "thresholds"},
    }
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options = {
        "reduceOptions": reduce,
        "textMode": text,
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
    }
    return Panel(title, description, (query,), "stat", unit, width, 4, options, {}, defaults)


def table(
    title: str,
    description: str,
    columns: Mapping[str, Query],
    *,
    units: Mapping[str, str],
    link: Json | None = None,
    width: int = 24,
    height: int = 8,
) -> Panel:
    """Return a table of instant queries with a row for each set of labels. `columns` and `units` are by column name."""
    names = {f"Value #{'ABCDEFGHIJ'[index]}": name for index, name in enumerate(columns)}
    if len(columns) == 1:
        names = {"Value": next(iter(columns))}
    hidden = {key: True for key, name in names.items() if not name}
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": {**_NO_TIME, **hidden},
            "renameByName": {key: name for key, name in names.items() if name},
        },
    }
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
        for name, unit in units.items()
    ]
    if link is not None:
        matcher = {"id": "byName", "options": "job"}
        overrides.append({"matcher": matcher, "properties": [{"id": "links", "value": [link]}]})
    transformations = [{"id": "merge", "options": {}}, organize]
    return Panel(
        title,
        description,
        tuple(columns.values()),
        "table",
        "short",
        width,
        height,
        {"showHeader": True, "cellHeight": "sm"},
        {"align": "auto", "filterable": True},
        {},
        overrides,
        transformations,
    )


def matrix(
    title: str, description: str, query: Query, *, row: str, column: str, unit: str, width: int = 24, **defaults: Any
) -> Panel:
    """Return a heat map of two labels: a row for each value of one, a column for each value of the other."""
    grouping = {"columnField": column, "rowField": row, "valueField": "Value", "emptyValue": "null"}
    named = {f"{row}\\{column}": row}
    transformations = [
        {"id": "groupingToMatrix", "options": grouping},
        {"id": "organize", "options": {"renameByName": named}},
    ]
    plain = {
        "matcher": {"id": "byName", "options": row},
        "properties": [{"id": "custom.cellOptions", "value": {"type": "auto"}}, {"id": "unit", "value": "string"}],
    }
    custom = {"cellOptions": {"type": "color-background", "mode": "basic"}, "align": "center"}
    return Panel(
        title,
        description,
        (query,),
        "table",
        unit,
        width,
        8,
        {"showHeader": True, "cellHeight": "md"},
        custom,
        {"color": HEAT, **defaults},
        (plain,),
        transformations,
    )


def history(title: str, description: str, query: Query, *, unit: str, width: int = 12, **defaults: Any) -> Panel:
    """Return a panel with a row for each series over time, coloured by value."""
    options = {"showValue": "never", "rowHeight": 0.9, "legend": _LEGEND, "tooltip": {"mode": "single"}}
    return Panel(
        title,
        description,
        (query,),
        "status-history",
        unit,
        width,
        8,
        options,
        {"fillOpacity": 80},
        {"color": HEAT, **defaults},
    )


def states(title: str, description: str, query: Query, colors: Mapping[str, str], *, width: int = 24) -> Panel:
    """Return a panel with a bar for each series, as long as the series exists."""
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": _fixed(color)}]}
        for name, color in colors.items()
    ]
    options = {"showValue": "never", "mergeValues": True, "rowHeight": 0.8, "legend": _LEGEND, "alignValue": "left"}
    custom = {"fillOpacity": 80, "lineWidth": 0}
    return Panel(title, description, (query,), "state-timeline", "short", width, 6, options, custom, {}, overrides)


def buckets(title: str, description: str, query: Query, *, unit: str, width: int = 12) -> Panel:
    """Return a panel with a histogram over time: the brighter, the more."""
    options = {
        "calculate": False,
        "yAxis": {"unit": unit},
        "color": {"mode": "scheme", "scheme": "Blues", "reverse": True, "steps": 64},
        "cellGap": 1,
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": False},
    }
    return Panel(title, description, (query,), "heatmap", unit, width, 8, options)


def _fixed(color: str) -> Json:
    return {"mode": "fixed", "fixedColor": color}
