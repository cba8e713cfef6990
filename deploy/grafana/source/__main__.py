"""`./scripts/dashboards`: writes deploy/grafana/dashboards/*.json; `--check` only says whether they are current."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from deploy.grafana.source.job import JOB
from deploy.grafana.source.model import Dashboard
from deploy.grafana.source.overview import OVERVIEW

DASHBOARDS = (OVERVIEW, JOB)
FOLDER = Path(__file__).parent.parent / "dashboards"


def text(dashboard: Dashboard) -> str:
    """The file's content."""
    return json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """1 where a file is not current, or nobody's."""
    parser = argparse.ArgumentParser(prog="./scripts/dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not current")
    check = parser.parse_args().check
    wanted = {FOLDER / f"{dashboard.uid}.json": text(dashboard) for dashboard in DASHBOARDS}
    stale = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    foreign = [path for path in FOLDER.glob("*.json") if path not in wanted]
    if check:
        for path in (*stale, *foreign):
            print(f"{path.relative_to(Path.cwd())}: differs from its description; run ./scripts/dashboards")
        return 1 if stale or foreign else 0
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(wanted[path])
    for path in foreign:
        path.unlink()
    print(f"{len(wanted)} dashboards, {len(stale)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
