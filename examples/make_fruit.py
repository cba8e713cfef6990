#!/usr/bin/env python3
"""Write the table of docs/tutorial.md: made-up measurements of four kinds of fruit.

    python examples/make_fruit.py FOLDER        # FOLDER/fruit.csv, and FOLDER/new-fruit.csv without the kinds

The same numbers each time, on every machine.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

COLUMNS = ("weight_hg", "length_dm", "width_dm", "redness", "firmness")
KINDS = {  # mean of each column
    0: (1.60, 0.75, 0.80, 0.60, 0.80),  # apple
    1: (1.70, 1.05, 0.75, 0.15, 0.60),  # pear
    2: (0.55, 0.50, 0.45, 0.75, 0.35),  # plum
    3: (1.10, 0.85, 0.60, 0.05, 0.55),  # lemon
}
SPREAD = (0.20, 0.08, 0.06, 0.12, 0.10)


def rows(seed: int, number: int) -> list[tuple[int, tuple[float, ...]]]:
    """Return `number` fruits: the kind of each, and a measurement for each column."""
    rng = random.Random(seed)
    kinds = [rng.choice(list(KINDS)) for _ in range(number)]
    return [
        (kind, tuple(abs(rng.gauss(mean, spread)) for mean, spread in zip(KINDS[kind], SPREAD, strict=True)))
        for kind in kinds
    ]


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    labelled = [",".join((*(f"{value:.2f}" for value in values), str(kind))) for kind, values in rows(1, 600)]
    (folder / "fruit.csv").write_text("\n".join([",".join((*COLUMNS, "kind")), *labelled, ""]))
    new = [",".join(f"{value:.2f}" for value in values) for _, values in rows(2, 5)]
    (folder / "new-fruit.csv").write_text("\n".join([",".join(COLUMNS), *new, ""]))


if __name__ == "__main__":
    main()
