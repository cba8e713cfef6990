from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.job.schedule_names import fewest_micro_batches
from coordinator.program.replay import replay
from coordinator.schedules import SCHEDULES, build, restrict
from coordinator.schedules.csv_format import load_csv, read_csv, write_csv
from stages.actions import Action, Kind, Lane, Program
from stages.errors import InvalidSchedule
from tests.coordinator.programs import anything_valid, built_in, shuffled_program, words
from tests.examples import examples

TORCH_CSV = Path(__file__).parent / "torch_csv"  # written by torch 2.13's _dump_csv
SIZES = [(p, w, m) for p in range(1, 6) for w in range(1, p + 1) for m in (1, 2, 3, 5, 8)]


def sizes_of(name: str) -> list[tuple[int, int, int]]:
    """Return the sizes for which the schedule can be built."""
    return [(p, w, m) for p, w, m in SIZES if m >= fewest_micro_batches(name, w)]


# writing ---------------------------------------------------------------------------------------------------------


def test_a_program_is_written_with_its_idle_time() -> None:
    assert write_csv(build("1f1b", n_stages=2, n_micro_batches=3)) == (
        "0F0,0F1,,0B0,0F2,0B1,,0B2\n"
        ",1F0,1B0,1F1,1B1,1F2,1B2,\n"
    )  # fmt: skip


def test_weight_gradients_are_written() -> None:
    assert write_csv(build("zb-h1", n_stages=2, n_micro_batches=2)) == (
        "0F0,0F1,,0I0,0W0,0I1,0W1\n"
        ",1F0,1I0,1F1,1I1,1W0,1W1\n"
    )  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_written_is_read_back(name: str) -> None:
    for p, w, m in sizes_of(name):
        program = build(name, n_stages=p, n_micro_batches=m, n_workers=w)
        assert read_csv(write_csv(program), name) == program


@settings(deadline=None, max_examples=examples(40, 100))
@given(built_in() | anything_valid())
def test_anything_valid_is_read_back(program: Program) -> None:
    text = write_csv(program)
    assert read_csv(text, program.name) == program
    assert len({line.count(",") for line in text.splitlines()}) == 1


# reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0F0,0B0\n1F0,1B0",
        "0F0,0B0\n1F0,1B0\n",
        "0F0,0B0\r\n1F0,1B0\r\n",
        "0F0,0B0\r1F0,1B0\r",
        "0F0,,,0B0,\n,1F0,1B0,,",
        " 0F0 ,\t0B0\n1F0, 1B0  ",
        '"0F0","0B0"\n1F0,1B0',
        "0F0,0B0\n1F0,1B0\n\n\n",
        "0F0,0B0\n1F0,1B0\n,,,\n",
        "00F0,0B00\n01F0,1B0",
        "0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD,0RESHARD\n1UNSHARD,1RECV_F0,1F0,1B0,1SEND_B0",
    ],
)
def test_ways_to_write_the_same(text: str) -> None:
    assert words(read_csv(text).lanes) == ["0F0 0B0", "1F0 1B0"]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbf0F0,0B0\r\n")
    assert words(load_csv(path).lanes) == ["0F0 0B0"]
    assert load_csv(path).name == "excel.csv"


@pytest.mark.parametrize("pair", ["(0F1;0B0)OVERLAP_F_B", "(0B0;0F1)OVERLAP_F_B", "( 0F1 ; 0B0 )OVERLAP_F_B"])
def test_a_pair_is_its_forward_and_then_its_backward(pair: str) -> None:
    assert words(read_csv(f"0F0,{pair},0B1").lanes) == ["0F0 0F1 0B0 0B1"]


def test_a_v_shaped_program_says_where_its_stages_are() -> None:
    program = read_csv("0F0,,,3F0,3B0,,,0B0\n,1F0,2F0,,,2B0,1B0,")
    assert program.placement == (0, 1, 1, 0)
    assert (program.n_stages, program.n_micro_batches, program.n_workers) == (4, 1, 2)
    assert replay(program).bubble == 0.5


def test_lines_need_not_be_in_the_order_of_stages() -> None:
    assert read_csv("1F0,1B0\n0F0,0B0").placement == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv: has no action; a line looks like 0F0,0F1,,0B0,0B1"),
        (",,\n\n", "a.csv: has no action; a line looks like 0F0,0F1,,0B0,0B1"),
        ("0F0,0B0\n\n1F0,1B0", "a.csv, line 2: has no action; each line is a worker with a stage or more"),
        ("\n0F0,0B0", "a.csv, line 1: has no action; each line is a worker with a stage or more"),
        ("0F0,0UNSHARD,0B0\n0UNSHARD\n1F0,1B0", "a.csv, line 2: has no action; "),
        (
            "0F0,,0B0\n1F0,1X0",
            "a.csv, line 2, cell 2: '1X0' is not an action; one looks like 2F0, 2B0, 2I0, 2W0 or (0F3",
        ),
        ("0F0,0B", "a.csv, line 1, cell 2: '0B' is not an action"),
        ("0F0;0B0", "a.csv, line 1, cell 1: '0F0;0B0' is not an action"),
        ("0F0,-1B0", "a.csv, line 1, cell 2: '-1B0' is not an action"),
        ("0F0,0FORWARD0", "a.csv, line 1, cell 2: '0FORWARD0' is not an action"),
        ("٠F0", "a.csv, line 1, cell 1: '٠F0' is not an action"),
        ("0F0,(0F1;0B0)", "a.csv, line 1, cell 2: '(0F1;0B0)' is not an action"),
        ("(;)OVERLAP_F_B", "a.csv, line 1, cell 1: '(;)OVERLAP_F_B' is not an action"),
        ('"0F\n0"', r"a.csv, line 1, cell 1: '0F\n0' is not an action"),
        ("9" * 5000 + "F0", f"a.csv, line 1, cell 1: '{'9' * 40}…' is not an action"),
        ("x" * 100_000, f"a.csv, line 1, cell 1: '{'x' * 40}…' is not an action"),
        ("0F0,0B0,0F1", "a.csv: 0B1 is missing on worker 0"),
        ("999999999F0", "a.csv: 0F0 is missing: no worker holds stage 0"),
        ("0F0,0B0,0F999999999", "a.csv: 0F1 is missing on worker 0"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        read_csv(text, "a.csv")
    assert str(caught.value).startswith(message)
    assert len(caught.value.problems) == 1
    assert len(str(caught.value)) < 200


@settings(deadline=None, max_examples=examples(80, 200))
@given(st.text('0123FBIW,;()\n\r "_OVERLAPx٣', max_size=60) | st.text(max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        program = read_csv(text)
    except InvalidSchedule as error:
        named = error
    else:
        replay(program)
        return
    assert len(named.problems) == 1


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe0\x00")
    for name, why in (
        ("none.csv", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("binary.csv", "is not text, so it is not a schedule"),
    ):
        with pytest.raises(InvalidSchedule) as caught:
            load_csv(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {why}"


# torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        ("interleaved-1f1b", (0, 1, 0, 1)),
        ("interleaved-zero-bubble", (0, 1, 0, 1)),
        ("zbv", (0, 1, 1, 0)),
        ("zbv.comms", (0, 1, 1, 0)),
        ("dualpipev", (0, 1, 1, 0)),
        ("dualpipev.comms", (0, 1, 1, 0)),
    ],
)
def test_files_that_torch_wrote_are_read(name: str, placement: tuple[int, ...]) -> None:
    program = load_csv(TORCH_CSV / f"{name}.csv")
    assert program.placement == placement
    assert (program.n_stages, program.n_micro_batches) == (4, 4)
    for m in range(1, 5):
        replay(restrict(program, m))


@pytest.mark.parametrize("name", ["zbv", "dualpipev"])
def test_our_schedules_in_a_v_are_torch_s(name: str) -> None:
    theirs = load_csv(TORCH_CSV / f"{name}.csv")
    ours = build(name, n_stages=4, n_micro_batches=4)
    assert (ours.lanes, ours.pairs) == (theirs.lanes, theirs.pairs)
    assert read_csv(write_csv(ours)).pairs == ours.pairs


@pytest.mark.parametrize("name", ["zbv", "dualpipev"])
def test_communication_does_not_change_what_is_computed(name: str) -> None:
    assert load_csv(TORCH_CSV / f"{name}.comms.csv").lanes == load_csv(TORCH_CSV / f"{name}.csv").lanes


def torch_schedules() -> Any:
    return pytest.importorskip(
        "torch.distributed.pipelining.schedules",
        reason="torch is not installed (pip install 'pipetrain[benchmark]'): the test needs torch's own reader",
    )


def runtime(schedule: Any, *, n_stages: int, n_workers: int, n_micro_batches: int, a_worker: int = 1) -> Any:
    """Return one of torch's schedules with stages that compute nothing: enough for its reader, writer and dry run."""
    import torch

    stages = [
        SimpleNamespace(
            num_stages=n_stages, group_size=n_workers, group_rank=0, stage_index=0, is_first=True, is_last=False,
            stage_index_to_group_rank={}, submod=torch.nn.Identity(), has_backward=True,
        )
        for _ in range(a_worker)
    ]  # fmt: skip
    return schedule(stages, n_micro_batches, loss_fn=lambda output, target: 0)


def accept_in_torch(T: Any, program: Program, path: Path) -> None:
    """Torch reads the file, finds the same lanes and placement, adds its communication, and completes its dry run."""
    path.write_text(write_csv(program), encoding="utf-8")
    sizes = {"n_stages": program.n_stages, "n_workers": program.n_workers, "n_micro_batches": program.n_micro_batches}
    reader = runtime(T._PipelineScheduleRuntime, **sizes)
    reader._load_csv(str(path))
    assert reader.stage_index_to_group_rank == dict(enumerate(program.placement))
    cells = [[cell for cell in lane if cell is not None] for lane in reader.pipeline_order.values()]
    read = [" ".join(str(action) for cell in lane for action in cell.sub_actions or (cell,)) for lane in cells]
    assert read == words(program.lanes)
    paired = {str(cell.sub_actions[0]) for lane in cells for cell in lane if cell.sub_actions}
    assert paired == set(map(str, program.pairs))
    moving = {  # torch's dry run knows no pairs
        rank: [
            a
            for cell in lane
            for a in cell.sub_actions or (cell,)
            if a.is_compute_op or str(a.computation_type.value).startswith(("SEND", "RECV"))
        ]
        for rank, lane in reader.pipeline_order_with_comms.items()
    }
    T._simulate_comms_compute(moving, lambda stage: reader.stage_index_to_group_rank[stage], program.n_stages)


@pytest.mark.parametrize("name", SCHEDULES)
def test_torch_reads_our_schedules(name: str, tmp_path: Path) -> None:
    T = torch_schedules()
    for p, w, m in sizes_of(name):
        accept_in_torch(T, build(name, n_stages=p, n_micro_batches=m, n_workers=w), tmp_path / "ours.csv")


def test_torch_reads_our_v_shaped_and_odd_programs(tmp_path: Path) -> None:
    T = torch_schedules()
    for seed in range(40):
        accept_in_torch(T, shuffled_program(4, 3, seed, [0, 1, 1, 0] if seed % 2 else None), tmp_path / "odd.csv")


@pytest.mark.parametrize(
    "name",
    [
        "ScheduleInterleaved1F1B",
        "ScheduleInterleavedZeroBubble",
        "ScheduleLoopedBFS",
        "ScheduleZBVZeroBubble",
        "ScheduleDualPipeV",
    ],
)
def test_we_read_what_torch_writes(name: str, tmp_path: Path) -> None:
    T, path, n_read = torch_schedules(), tmp_path / "torch.csv", 0
    for w, v, m in ((w, v, m) for w in range(1, 5) for v in (1, 2, 3) for m in (1, 2, 3, 4, 6, 8)):
        try:
            theirs = runtime(getattr(T, name), n_stages=w * v, n_workers=w, n_micro_batches=m, a_worker=v)
        except (ValueError, AssertionError):
            continue  # a size that torch's own schedule does not support
        lanes = tuple(
            tuple(Action.parse(str(a)) for cell in lane if cell is not None for a in cell.sub_actions or (cell,))
            for lane in theirs.pipeline_order.values()
        )
        for form in ("compute_only", "compute_comms"):
            theirs._dump_csv(str(path), format=form)
            assert load_csv(path).lanes == lanes, (w, v, m, form)
        n_read += 1
    assert n_read >= 8


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("zbv", "ScheduleZBVZeroBubble"), ("dualpipev", "ScheduleDualPipeV"), ("looped-bfs", "ScheduleLoopedBFS")],
)
def test_our_schedules_are_torch_s_for_every_size(ours: str, theirs: str, tmp_path: Path) -> None:
    T, path, n_compared = torch_schedules(), tmp_path / "torch.csv", 0
    for w, m in ((w, m) for w in range(1, 7) for m in range(1, 15)):
        built = {"n_stages": 2 * w, "n_micro_batches": m}
        try:
            made = runtime(getattr(T, theirs), n_workers=w, a_worker=2, **built)
        except ValueError:
            with pytest.raises(InvalidSchedule, match="too few"):
                build(ours, **built)
            continue
        made._dump_csv(str(path), format="compute_only")
        wanted, found = load_csv(path), build(ours, **built)
        if ours == "looped-bfs":  # torch's backwards are in descending order, see its docstring
            upside_down = [_with_ascending_backwards(lane, m) for lane in wanted.lanes]
            assert (list(found.lanes), found.placement) == (upside_down, wanted.placement), (w, m)
        else:
            assert (found.lanes, found.pairs, found.placement) == (wanted.lanes, wanted.pairs, wanted.placement), (w, m)
        n_compared += 1
    assert n_compared >= 40


def _with_ascending_backwards(lane: Lane, m: int) -> Lane:
    turned = (Action(a.stage, a.kind, m - 1 - a.micro_batch) if a.kind is Kind.BACKWARD else a for a in lane)
    return tuple(turned)


def test_we_accept_the_orders_of_torch_s_simple_schedules_where_torch_does(tmp_path: Path) -> None:
    """torch 2.13's Schedule1F1B describes itself with F1 … F4 instead of F0 … F3 on its last rank: both refuse it."""
    T, path = torch_schedules(), tmp_path / "torch.csv"
    accepted = {"ScheduleGPipe": 0, "Schedule1F1B": 0}
    for name, w, m in ((name, w, m) for name in accepted for w in (1, 2, 4) for m in (4, 8)):
        single = getattr(T, name)
        theirs = runtime(
            lambda stages, *rest, cls=single, **more: cls(stages[0], *rest, **more),
            n_stages=w,
            n_workers=w,
            n_micro_batches=m,
        )
        order = theirs._get_pipeline_order()
        if order is None:
            continue
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(order[rank] for rank in sorted(order))
        try:
            T._validate_schedule(order, w, w, m)
        except AssertionError:
            with pytest.raises(InvalidSchedule, match="is missing"):
                load_csv(path)
        else:
            assert load_csv(path).n_micro_batches == m
            accepted[name] += 1
    assert accepted["ScheduleGPipe"]
