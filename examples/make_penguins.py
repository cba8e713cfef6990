#!/usr/bin/env python3
"""Write the tables of docs/tutorial.md: made-up penguins, of three species that differ in size and home.

    python examples/make_penguins.py FOLDER

FOLDER/penguins.csv        240 penguins, some cells are empty
FOLDER/new-penguins.csv    five more, without their species
FOLDER/pinguine.csv        the same as the first, as a spreadsheet in Germany writes it

The same each time, on every machine.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

COLUMNS = ("ring", "species", "island", "bill_mm", "flipper_mm", "mass_g", "sex", "seen")
SPECIES = {  # islands, and means of bill, flipper and mass
    "Adelie": (("Biscoe", "Dream", "Torgersen"), (38.8, 190, 3700)),
    "Chinstrap": (("Dream",), (48.8, 196, 3730)),
    "Gentoo": (("Biscoe",), (47.5, 217, 5080)),
}
SPREAD = (2.4, 6.0, 300)
GERMAN = {"male": "männlich", "female": "weiblich"}
GERMAN_COLUMNS = ("Ring", "Art", "Insel", "Schnabel_mm", "Flügel_mm", "Masse_g", "Geschlecht", "gesehen")


def penguins(ring: str, seed: int, number: int, empty: float) -> Iterator[list[str]]:
    """Yield the cells of `number` penguins. `empty` is the share of measurements and sexes that are not known."""
    rng = random.Random(seed)
    for k in range(1, number + 1):
        name = rng.choice(sorted(SPECIES))
        islands, means = SPECIES[name]
        sex = rng.choice(("male", "female"))
        size = 0.5 if sex == "male" else -0.5
        bill, flipper, mass = (rng.gauss(mean + size * s, s) for mean, s in zip(means, SPREAD, strict=True))
        seen = date(2007, 11, 1) + timedelta(days=rng.randrange(60) + 365 * rng.randrange(3))
        measured = [f"{bill:.1f}", f"{flipper:.0f}", f"{25 * round(mass / 25)}", sex]
        known = [cell if rng.random() >= empty else "" for cell in measured]
        yield [f"{ring}{k}", name, rng.choice(islands), *known, str(seen)]


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    known, new = list(penguins("A", 1, 240, 0.02)), list(penguins("B", 2, 5, 0))
    german = [[GERMAN.get(cell, cell.replace(".", ",")) for cell in cells] for cells in known]
    _write(folder / "penguins.csv", [COLUMNS, *known])
    _write(folder / "new-penguins.csv", [[*cells[:1], *cells[2:]] for cells in (COLUMNS, *new)])
    _write(folder / "pinguine.csv", [GERMAN_COLUMNS, *german], ";", "latin-1")


def _write(file: Path, lines: Sequence[Sequence[str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    file.write_text("".join(f"{delimiter.join(cells)}\n" for cells in lines), encoding=encoding)


if __name__ == "__main__":
    main()
