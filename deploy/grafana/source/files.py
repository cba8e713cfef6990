"""Writes the dashboards as JSON files for Grafana, and checks them."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.source.job import JOB
from deploy.grafana.source.model import Dashboard
from deploy.grafana.source.overview import OVERVIEW

DASHBOARDS = (OVERVIEW, JOB)
FOLDER = Path(__file__).parent.parent / "dashboards"


def text(dashboard: Dashboard) -> str:
    """Return the content of a dashboard's file."""
    return json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"


def wrong(folder: Path = FOLDER) -> list[Path]:
    """Return the files that are missing, differ from their description, or have no description."""
    wanted = {folder / f"{dashboard.uid}.json": text(dashboard) for dashboard in DASHBOARDS}
    stale = [path for path, content in wanted.items() if not path.exists() or path.read_text("utf-8") != content]
    return stale + [path for path in folder.glob("*.json") if path not in wanted]


def write(folder: Path = FOLDER) -> None:
    """Write all files, and remove those without a description."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.uid}.json").write_text(text(dashboard), "utf-8")
