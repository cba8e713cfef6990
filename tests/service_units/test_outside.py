"""Reading jobs' files outside the service's process: real readers, and files that must never stop the service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.large_data import job as benchmark_job
from benchmarks.large_data import write_large
from cluster.data.rules import FREE, SourceRules
from cluster.data.sources import load_data
from cluster.service.outside import MOST_BYTES, Outside, Unreadable
from cluster.service.planning import choose_settings, plan_job, schedule_workers, wrong_paths
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.choosing import chosen
from coordinator.plan.estimate import estimate
from coordinator.plan.planned_schedule import planned_schedule
from stages.errors import JobFailed, Refused
from tests.coordinator.job_documents import SMALLEST, changed

HANGS = (sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)")
"""A reader whose file system never answers."""
FAILS = (sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.readline(); sys.exit('a bug')")


@asynccontextmanager
async def readers(**settings: Any) -> AsyncIterator[Outside]:
    outside = Outside(**settings)
    try:
        yield outside
    finally:
        await outside.close()


def run(ask: Callable[[Outside], Awaitable[Any]], **settings: Any) -> Any:
    """Return the result of `ask` with new readers."""

    async def all_of_it() -> Any:
        async with readers(**settings) as outside:
            return await ask(outside)

    return asyncio.run(all_of_it())


def reading(path: Path) -> JobSpec:
    return parse_job(changed("data.source", str(path)))


def special(kind: str, tmp_path: Path) -> Path:
    """Make a special file with the ending of a schedule."""
    path = tmp_path / f"{kind.replace(' ', '-')}.csv"
    if kind == "a fifo":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**30)
    return path


def test_what_would_hang_or_fill_the_memory_is_refused_with_its_name(tmp_path: Path) -> None:
    kinds = {"is a fifo": "a fifo", "is a device": "a device", "has 1,073,741,824 bytes": "1 GiB"}
    paths = {told: special(kind, tmp_path) for told, kind in kinds.items()}

    async def ask(outside: Outside) -> None:
        for told, path in paths.items():
            with pytest.raises(Unreadable) as caught:
                await schedule_workers(outside, "mine.csv", str(path), FREE)
            assert str(caught.value).startswith(f"mine.csv: cannot be read: {told}")
        with pytest.raises(Unreadable) as caught:
            await plan_job(outside, reading(path), {}, FREE, 1)
        assert str(caught.value).startswith(f"{path}: cannot be read: {told}")

    run(ask)


def test_a_plan_is_what_the_command_says_and_the_next_reader_waits_for_its_question() -> None:
    spec = parse_job(SMALLEST)
    data = load_data(spec)
    blueprint = make_blueprint(spec, len(data.train))
    expected = estimate(
        blueprint,
        data_bytes=data.nbytes + data.reading_bytes,
        validation_rows=len(data.validation),
    )

    async def ask(outside: Outside) -> Any:
        first = await plan_job(outside, spec, {}, FREE, 1)
        assert outside._spare is not None
        ahead = await outside._spare
        assert first == await plan_job(outside, spec, {}, FREE, 1)
        assert ahead.returncode is not None, "the second request did not get the waiting process"
        return first

    told = {**expected.as_dict(), **planned_schedule(blueprint), "data": list(data.said)}
    assert run(ask) == (json.dumps(told), list(expected.refusals))


def test_data_that_take_too_much_memory_are_refused_and_an_uploaded_file_has_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "0f.npz"
    x = np.asfortranarray(np.zeros((400_000, 64)))  # so that it is read into memory, not made a file of rows
    np.savez_compressed(path, x=x, y=np.zeros(400_000))

    async def ask(outside: Outside) -> str:
        with pytest.raises(Unreadable) as caught:
            await plan_job(outside, reading(Path("/mine/rows.npz")), {"/mine/rows.npz": str(path)}, FREE, 1)
        return str(caught.value)

    assert run(ask, memory=64 * 2**20) == (
        "/mine/rows.npz: does not fit into this machine's memory; split it into smaller files"
    )


def test_settings_are_chosen_as_by_the_command_and_the_data_is_read_only_if_the_network_follows_from_it(
    tmp_path: Path,
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b,kind\n" + "".join(f"{n},{n % 7},{'xyz'[n % 3]}\n" for n in range(60)))
    settled = parse_job({**changed("data.source", "/nowhere/rows.npz"), "pipeline": "auto"})
    model = {"layers": [{"linear": {"units": 8}}, "relu", {"linear": {"units": "classes"}}], "loss": "cross_entropy"}
    follows = {**SMALLEST, "model": model, "pipeline": "auto"}
    open_job = parse_job({**follows, "data": {"source": "/mine/rows.csv", "target": "kind"}})
    here = open_job.replace(data__source=str(table))

    async def ask(outside: Outside) -> Any:
        return (
            await choose_settings(outside, settled, {}, FREE, 2),
            await choose_settings(outside, open_job, {"/mine/rows.csv": str(table)}, FREE, 2),
        )

    (first, first_line), (second, second_line) = run(ask)
    assert (first, (first_line,)) == chosen(settled, settled.training.batch_size, 2)
    data = load_data(here)
    expected, lines = chosen(data.spec, len(data.train), 2, **data.for_plan)
    assert (second.pipeline, second.training) == (expected.pipeline, expected.training)
    assert (second_line,) == lines
    assert second.data.source == "/mine/rows.csv"
    assert second.document()["model"] == open_job.document()["model"], "it stays open until the data is read"


def test_with_a_memory_limit_the_choice_counts_the_data_and_fits() -> None:
    """Without its data the job seemed to fit into less memory than it takes."""
    spec = parse_job({**SMALLEST, "pipeline": "auto", "resources": {"memory_per_worker": "1GiB"}})
    data = load_data(spec)
    one = chosen(spec, len(data.train), 2, **data.for_plan)[0]
    needs = estimate(make_blueprint(one, len(data.train)), **data.for_plan).workers[0].total
    tight = spec.replace(resources__memory_per_worker=needs - 1)
    without = chosen(tight, spec.training.batch_size, 2)[0]

    async def ask(outside: Outside) -> Any:
        small = tight.replace(resources__memory_per_worker=100_000)
        with pytest.raises(Unreadable, match=r"^resources\.memory_per_worker: .* is too little for all") as caught:
            await choose_settings(outside, small, {}, FREE, 2)
        assert len(caught.value.problems) == 1
        return await choose_settings(outside, tight, {}, FREE, 2)

    found, line = run(ask)
    expected, lines = chosen(tight, len(data.train), 2, **data.for_plan)
    assert (found, (line,)) == (expected, lines)
    assert found != without
    assert estimate(make_blueprint(found, len(data.train)), **data.for_plan).refusals == ()
    assert estimate(make_blueprint(without, len(data.train)), **data.for_plan).refusals != ()


def test_data_that_stay_in_their_file_are_planned_without_reading_them_all(tmp_path: Path) -> None:
    """600 MB with a memory limit of 64 MiB: more than the largest source that is read only to plan a job. It was
    refused for its size."""
    path = tmp_path / "large.npz"
    write_large(path, 150_000, real_rows=8)
    assert path.stat().st_size > MOST_BYTES
    spec = benchmark_job(path, 8)

    async def ask(outside: Outside) -> Any:
        plan, refusals = await plan_job(outside, spec, {}, FREE, 1)
        return json.loads(plan), refusals

    plan, refusals = run(ask, memory=64 * 2**20)
    assert not refusals
    rows = 150_000 * (4 + 8) + 8 * 149_998  # their numbers, labels, and the order of an epoch
    assert [worker["data_bytes"] for worker in plan["workers"]] == [rows + 2 * 4 * 1000] * 2


def test_a_plan_that_takes_too_long_does_not_blame_the_file_system_alone() -> None:
    async def ask(outside: Outside) -> str:
        with pytest.raises(Refused) as caught:
            await plan_job(outside, reading(Path("rows.csv")), {}, FREE, 1)
        return str(caught.value)

    told = run(ask, seconds=0.1, command=HANGS)
    assert "was not read and planned within 0.1 s" in told
    assert "very many layers" in told


def test_a_choice_that_takes_too_long_is_one_line_that_says_what_to_do() -> None:
    async def ask(outside: Outside) -> Sequence[str]:
        with pytest.raises(Refused) as caught:
            await choose_settings(outside, parse_job({**SMALLEST, "pipeline": "auto"}), {}, FREE, 1)
        return caught.value.problems

    (told,) = run(ask, seconds=0.1, command=HANGS)
    assert "\n" not in told
    assert told.startswith("digits: no settings were chosen for pipeline: auto within 0.1 s; ")
    assert "pipeline.stages and pipeline.schedule instead" in told


def test_a_hung_file_system_holds_up_only_who_asked_and_leaves_no_process() -> None:
    async def ask(outside: Outside) -> list[str]:
        answers = asyncio.gather(
            *(schedule_workers(outside, f"{i}.csv", f"{i}.csv", FREE) for i in range(6)), return_exceptions=True
        )
        turns = 0
        while not answers.done():  # the event loop goes on meanwhile
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 20
        assert all(isinstance(error, Refused) for error in answers.result())
        return [str(error) for error in answers.result()]

    told = run(ask, seconds=0.5, command=HANGS)
    assert sum("was not read within 0.5 s" in line for line in told) >= 2
    assert all("was not read within" in line or "still reads files of other requests" in line for line in told)
    assert not [
        child for child in psutil.Process().children(recursive=True) if "sleep(600)" in " ".join(child.cmdline())
    ]


def test_who_goes_away_ends_the_reading() -> None:
    async def ask(outside: Outside) -> None:
        task = asyncio.create_task(schedule_workers(outside, "x.csv", "x.csv", FREE))
        while not outside._working:
            await asyncio.sleep(0.01)
        (process,) = outside._working
        task.cancel()
        assert await process.wait() < 0

    run(ask, command=HANGS)


def test_a_reader_that_fails_is_told_and_leaves_its_place() -> None:
    async def ask(outside: Outside) -> None:
        for _ in range(4):
            with pytest.raises(JobFailed, match=r"reading x\.csv failed: .*a bug"):
                await schedule_workers(outside, "x.csv", "x.csv", FREE)

    run(
        ask,
        command=(
            sys.executable,
            "-c",
            "import sys; print('ready', flush=True); sys.stdin.readline(); sys.exit('a bug')",
        ),
        most=1,
    )


def test_paths_are_looked_at_outside_too(tmp_path: Path) -> None:
    there = tmp_path / "a.csv"
    there.touch()
    (tmp_path / "in").mkdir()
    rules = SourceRules(roots=(str(tmp_path / "in"),))

    async def ask(outside: Outside) -> Any:
        paths = [str(there), str(tmp_path / "in" / "b.csv")]
        return [
            await wrong_paths(outside, paths, FREE, exists=False),
            await wrong_paths(outside, paths, FREE, exists=True),
            await wrong_paths(outside, paths, rules, exists=False),
        ]

    nothing, missing, outside_of = run(ask)
    assert nothing == {}
    assert missing == {str(tmp_path / "in" / "b.csv"): "no such file on the service's machine"}
    assert outside_of == {str(there): f"local files are read only below {tmp_path / 'in'} by this service"}
