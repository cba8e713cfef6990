"""`./scripts/dashboards`: writes deploy/grafana/dashboards/*.json; `--check` only tests whether they are current."""

from __future__ import annotations

import argparse
import sys

from deploy.grafana.source.files import DASHBOARDS, write, wrong


def main() -> int:
    """Return 0, or 1 if `--check` finds a file that is not current."""
    parser = argparse.ArgumentParser(prog="./scripts/dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    found = wrong()
    if not parser.parse_args().check:
        write()
        print(f"{len(DASHBOARDS)} dashboards, {len(found)} changed")
        return 0
    for path in found:
        print(f"{path.name}: differs from its description in deploy/grafana/source; run ./scripts/dashboards")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
