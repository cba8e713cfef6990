"""The panel that shows how good a network is: figures by class with a confusion matrix, or by target."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from nicegui import Client

from cluster.dashboard.pages.evaluation_panel import EvaluationPanel, evaluation_view
from cluster.dashboard.site import Site
from cluster.run.evaluation import evaluation_document, figures
from coordinator.train.rows import EvalRow
from stages.losses import build_loss
from stages.quality import quality
from tests.dashboard.test_views import in_a_client

ROW = EvalRow(step=1200, epoch=3, loss=0.5, accuracy=0.75, samples=4)


def classes(n: int, labels: list[int], predicted: list[int]) -> dict[str, Any]:
    """The content of evaluation.json for rows of these classes."""
    f = np.eye(n)[:, predicted]
    return evaluation_document(ROW, quality(build_loss("cross_entropy"), f, np.array(labels)), None)


def test_classes_have_a_table_and_a_confusion_matrix() -> None:
    view = evaluation_view(classes(3, [0, 0, 1, 1], [0, 1, 1, 1]))
    assert view is not None
    assert view.about == "After step 1,200, epoch 3: 4 rows"
    assert view.rows == (
        ("0", "100.0%", "50.0%", "66.7%", "2"),
        ("1", "66.7%", "100.0%", "80.0%", "2"),
        ("2", "–", "–", "–", "0"),
        ("mean of all", "83.3%", "75.0%", "73.3%", "4"),
    )
    assert view.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))


def test_many_classes_are_folded_into_those_with_the_most_mistakes() -> None:
    labels = list(range(100))
    view = evaluation_view(classes(100, labels, [*labels[:98], 99, 98]))
    assert view is not None
    assert len(view.rows) == 25
    assert view.notes == "76 more classes have a higher F1; evaluation.json has them."
    assert view.names[-3:] == ("98", "99", "85 others")
    assert sum(map(sum, view.confusion)) == 100
    assert view.confusion[-3][-2] == view.confusion[-2][-3] == 1
    assert view.confusion[-1][-1] == 85


def test_targets_have_a_table_alone() -> None:
    y = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    found = figures(quality(build_loss("mse"), y + 1, y), None)
    view = evaluation_view({"step": 1, "epoch": 1, "rows": 3, **found})
    assert view is not None
    assert view.rows == (("0", "-0.5", "1", "1"), ("1", "–", "1", "1"))
    assert view.confusion == ()


@pytest.mark.parametrize("damaged", [{}, {"step": 1, "epoch": 1, "rows": 1}, {"targets": [1]}, {"step": "a"}])
def test_a_damaged_file_shows_nothing(damaged: dict[str, Any]) -> None:
    assert evaluation_view(damaged) is None


def test_the_panel_appears_with_the_first_evaluation_and_follows_it() -> None:
    async def look(client: Client) -> None:
        panel = EvaluationPanel()
        panel.show(None)
        assert not panel._place.visible
        for predicted, cells in (([0, 1, 1, 1], ["1", "1", "0", "2"]), ([0, 0, 1, 1], ["2", "0", "0", "2"])):
            panel.show(evaluation_view(classes(2, [0, 0, 1, 1], predicted)))
            assert [label.text for row in panel._cells for label in row] == cells
        assert panel._place.visible

    asyncio.run(in_a_client(look))


def test_only_the_present_attempt_s_file_is_shown(tmp_path: Path) -> None:
    site = cast(Site, SimpleNamespace(folder=lambda job: tmp_path))

    def found(attempt: int) -> dict[str, Any] | None:
        record = cast(Any, SimpleNamespace(id="a", attempt=attempt))
        return asyncio.run(Site.evaluation(site, record))

    assert found(1) is None
    (tmp_path / "evaluation.json").write_text(json.dumps({"attempt": 2, "step": 1}))
    assert (found(1), found(2)) == (None, {"attempt": 2, "step": 1})
    (tmp_path / "evaluation.json").write_text("{")
    assert found(2) is None
