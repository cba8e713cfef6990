"""Unknown query parameters are reported, for any number of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from cluster.dashboard.routes import _known_parameters
from stages.errors import UserMistake


def _request(query: str) -> Any:
    route = SimpleNamespace(dependant=SimpleNamespace(query_params=[SimpleNamespace(alias="state")]))
    return SimpleNamespace(scope={"route": route}, query_params=QueryParams(query))


def test_the_first_hundred_unknown_parameters_are_told() -> None:
    """A line of 64 KiB has thousands of parameters. Looking for the nearest name of each took seconds, and the answer
    was large."""
    _known_parameters(_request("state=RUNNING"))
    with pytest.raises(UserMistake) as caught:
        _known_parameters(_request("&".join(f"stat{n}=1" for n in range(8000))))
    lines = caught.value.problems
    assert lines[0] == "stat0: unknown parameter, must be state; did you mean state?"
    assert lines[100:] == ("and 7,900 more problems",)
