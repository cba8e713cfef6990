"""Text as data: tokens, rows, errors of texts that do not fit; and text that a network writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cluster.cli import cli
from cluster.cli.generate import TokenDraw
from cluster.client import Client
from cluster.data.rules import SourceRules
from cluster.data.sources import JobData, load_data
from cluster.data.texts.loading import Vocabulary, target_bytes
from cluster.run.saved_model import open_run
from cluster.service.files import files_to_fetch
from coordinator.job.spec import parse_job
from stages.errors import InvalidData, InvalidJob
from stages.windows import Windows
from tests.jobs import pipetrain_here

TEXT = "the cat sat on the mat.\nthe dog sat on the log.\n" * 40


def _job(source: object, layers: list[Any] | None = None, **data: Any) -> dict[str, Any]:
    body = layers or [{"embedding": {"units": 8}}, "positions", {"transformer": {"heads": 2}}]
    return {
        "model": {"layers": [*body, {"linear": {"units": "classes"}}], "loss": "cross_entropy"},
        "data": {"source": str(source), "block": 8, "validation": 0.1, **data},
        "training": {"steps": 4, "batch_size": 4, "optimizer": {"adamw": {"learning_rate": 0.01}}},
    }


def _load(source: object, **data: Any) -> JobData:
    return load_data(parse_job(_job(source, **data)))


def _file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_rows_are_blocks_and_the_tokens_that_follow_and_the_tail_is_held_out(tmp_path: Path) -> None:
    data = _load(_file(tmp_path / "a.txt", TEXT))
    assert data.vocabulary is not None
    characters = sorted(set(TEXT))
    assert (data.vocabulary.characters, data.vocabulary.size) == ("".join(characters), len(characters))
    n = len(TEXT) - round(0.1 * len(TEXT))
    x, y = data.train.x[0:2], data.train.y[0:2]
    assert [data.vocabulary.decode(row) for row in x] == [TEXT[:8], TEXT[8:16]]
    assert [data.vocabulary.decode(row) for row in y] == [TEXT[1:9], TEXT[9:17]]
    assert len(data.train) == (n - 1) // 8
    assert data.vocabulary.decode(data.validation.x[0:1][0]) == TEXT[n : n + 8]
    model = data.spec.model_spec()
    assert (model.vocabulary, model.input.positions, model.network.output.features) == (
        len(characters),
        8,
        len(characters),
    )
    assert parse_job(data.spec.document()) == data.spec


def test_random_windows_may_begin_anywhere(tmp_path: Path) -> None:
    data = _load(_file(tmp_path / "a.txt", TEXT), windows="random")
    assert len(data.train) == len(TEXT) - round(0.1 * len(TEXT)) - 8
    assert data.vocabulary is not None
    assert data.vocabulary.decode(data.train.x[np.array([3])][0]) == TEXT[3:11]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\n".join(json.dumps({"text": line}) for line in TEXT.splitlines())),
        ("a.bin", np.arange(900, dtype="<u2").tobytes()),
        ("b.bin", np.array([20240520, 1, 900, *[0] * 253], "<u4").tobytes() + np.arange(900, dtype="<u2").tobytes()),
        ("c.bin", np.array([20240801, 1, 900, *[0] * 253], "<u4").tobytes() + np.arange(900, dtype="<u4").tobytes()),
    ],
)
def test_other_files_are_read(tmp_path: Path, name: str, content: str | bytes) -> None:
    data = _load(_file(tmp_path / name, content))
    assert data.vocabulary is not None
    if name.endswith(".bin"):
        assert data.vocabulary == Vocabulary("numbers", 900)
        assert data.train.x[1:2].tolist() == [list(range(8, 16))]
    else:
        assert data.vocabulary.decode(data.train.x[0:1][0]) == TEXT[:8]


def test_bytes_and_numbers_and_a_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    source = _file(tmp_path / "a.txt", TEXT)
    assert _load(source, tokens="bytes").vocabulary == Vocabulary("bytes", 256)
    np.save(tmp_path / "a.npy", np.arange(900, dtype=np.uint16))
    assert _load(tmp_path / "a.npy").vocabulary == Vocabulary("numbers", 900)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=60))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    data = _load(source, tokens=str(tmp_path / "tokenizer.json"))
    assert data.vocabulary is not None
    assert data.vocabulary.size == tokenizer.get_vocab_size()
    assert data.train.x[0:1][0].tolist() == tokenizer.encode(TEXT).ids[:8]


def test_every_machine_has_a_text() -> None:
    data = _load("stdlib")
    assert len(data.train) > 100_000
    assert data.fingerprint() == _load("stdlib").fingerprint()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", b"\xff\xfe", "is not text in UTF-8: invalid start byte at byte 0"),
        ("a.txt", b"", "is empty"),
        ("a.txt", b"short text here", "2 tokens for validation are too few for a row"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": 1}\n', 'line 2 is not a JSON object with an entry "text"'),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', 'line 2: its entry "text" is null, must be a text'),
        ("a.jsonl", b'{"text": ["a", 1]}\n', 'line 1: its entry "text" is ["a", 1], must be a text'),
        ("a.jsonl", b'{"text": "a\\ud800"}\n', "line 1: character '\\ud800' at position 2 is half of a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, 'line 1 is not a JSON object with an entry "text"'),
        ("a.bin", b"123", "has 3 bytes, must hold numbers of 16 bits"),
    ],
)
def test_a_text_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    source = _file(tmp_path / name, content)
    with pytest.raises(InvalidData) as told:
        _load(source)
    assert str(told.value).startswith(str(source))
    assert line in str(told.value)


def test_a_second_text_that_is_too_short_is_named(tmp_path: Path) -> None:
    source, short = _file(tmp_path / "a.txt", TEXT), _file(tmp_path / "b.txt", "the cat")
    with pytest.raises(InvalidData) as told:
        _load(source, validation=str(short))
    assert str(told.value).startswith(f"{short}: 7 tokens for validation are too few for a row of 8 tokens")
    with pytest.raises(InvalidData) as told:
        _load(short, validation=str(source), tokens="bytes")
    assert str(told.value).startswith(f"{short}: 7 tokens for training are too few")


def test_parts_of_a_network_with_a_short_form_are_called_operations(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(_job(_file(tmp_path / "a.txt", TEXT))))
    refused = pipetrain_here("verify", tmp_path / "job.yaml", "--local", "--stages", "99")
    assert refused.stderr == "error: --stages: 99 stages for 13 operations; from 1 to 13\n"


def test_what_a_text_needs_is_told(tmp_path: Path) -> None:
    source = _file(tmp_path / "a.txt", TEXT)
    with pytest.raises(InvalidData, match=r"data\.block is missing"):
        load_data(parse_job(_job(source, block=None)))
    job = _job(source)
    job["model"] |= {"input": [8], "vocabulary": 5}
    job["model"]["layers"][-1] = {"linear": {"units": 5}}
    with pytest.raises(InvalidData, match=r"tokens, but the model knows 5; leave model\.input and vocabulary out"):
        load_data(parse_job(job))
    with pytest.raises(InvalidJob, match=r"model\.input: missing, must be the shape of one sample"):
        parse_job({**_job("digits"), "data": {"source": "digits"}})


def test_a_run_on_text_is_evaluated_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is trained until it knows its two sentences; the seed determines what it writes."""
    source, run = _file(tmp_path / "a.txt", TEXT), tmp_path / "run"
    job = _job(source, windows="random")
    job["training"] |= {"steps": 150, "batch_size": 16, "micro_batches": 2}
    job["pipeline"] = {"stages": 2}
    (tmp_path / "job.yaml").write_text(json.dumps(job))

    def command(*arguments: object) -> str:
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    shown = command("train", tmp_path / "job.yaml", "--local", "--run-dir", run)
    told = json.loads(command("evaluate", run, "--json"))
    assert told["perplexity"] == pytest.approx(np.exp(told["loss"]))
    assert told["bits_per_byte"] == pytest.approx(told["loss"] / np.log(2))  # all of its characters have one byte
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluation = [row for row in rows if row["kind"] == "eval"][-1]
    assert evaluation["bits_per_byte"] == pytest.approx(told["bits_per_byte"], rel=1e-4)
    figures = f"perplexity {evaluation['perplexity']:.4g}, {evaluation['bits_per_byte']:.4g} bits/byte"
    assert figures in shown
    assert figures.replace(", ", " · ") in shown
    assert f"perplexity {told['perplexity']:.4g}, {told['bits_per_byte']:.4g} bits/byte" in command("evaluate", run)
    assert told["loss"] < 1.0
    assert told["accuracy"] > 0.6
    other = _file(tmp_path / "other.txt", TEXT[:200])
    assert json.loads(command("evaluate", run, "--data", other, "--json"))["loss"] < 1.0
    short = _file(tmp_path / "short.txt", "the cat")
    refused = pipetrain_here("evaluate", run, "--data", short)
    told = f"error: {short}: 7 tokens are too few for a row of 8 tokens and the token after it; give more text\n"
    assert (refused.returncode, refused.stderr) == (2, told)
    careful = command("generate", run, "--prompt", "the cat sat", "--tokens", 12, "--temperature", 0)
    assert careful.startswith("the cat sat on the ")
    assert command("generate", run, "--tokens", 20, "--seed", 3) == command(
        "generate", run, "--tokens", 20, "--seed", 3, "--low-memory"
    )
    assert command("generate", run, "--tokens", 20, "--seed", 3) != command(
        "generate", run, "--tokens", 20, "--seed", 4
    )
    refused = pipetrain_here("generate", run, "--prompt", "the Ω")
    assert refused.returncode == 2
    assert "character 'Ω' at position 5 is not in the vocabulary" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    def fetch(folder: str, what: str) -> None:
        assert what == "model"
        for name in ("job.yaml", "model.json", "model.safetensors"):
            shutil.copy(run / name, folder)

    monkeypatch.setattr(Client, "get", lambda client, name: SimpleNamespace(fetch=fetch))
    monkeypatch.setenv("PIPETRAIN_TOKEN", "t" * 32)
    monkeypatch.setenv("PIPETRAIN_ADDRESS", "127.0.0.1:1")
    assert command("generate", "some-job", "--prompt", "the cat sat", "--tokens", 12, "--temperature", 0) == careful


def test_a_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    """The job file names a tokenizer next to it; the run works without that file afterwards."""
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=40))
    tokenizer.save(str(tmp_path / "own.json"))
    _file(tmp_path / "a.txt", TEXT)
    (tmp_path / "job.yaml").write_text(json.dumps(_job("a.txt", tokens="own.json")))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (tmp_path / "own.json").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    run = open_run(tmp_path / "moved")
    assert run.vocabulary is not None
    assert run.vocabulary.encode("the cat", "").tolist() == tokenizer.encode("the cat").ids
    done = pipetrain_here("generate", tmp_path / "moved", "--prompt", "the cat", "--tokens", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_to_fetch(tmp_path / "moved", model=True)[-1] == tmp_path / "moved" / "tokenizer.json"


def test_a_network_on_numbers_goes_on_with_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(400, dtype=np.uint16) % 20)
    (tmp_path / "job.yaml").write_text(json.dumps(_job("a.npy")))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    done = pipetrain_here("generate", tmp_path / "run", "--prompt", "1 2 3", "--tokens", "2")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 5
    for prompt, line in (
        ("1 x", "give some such as '12 7 3', got '1 x'"),
        ("1 20", "token 20 at position 2 is not in"),
    ):
        refused = pipetrain_here("generate", tmp_path / "run", "--prompt", prompt)
        assert refused.returncode == 2
        assert line in refused.stderr
    refused = pipetrain_here("generate", tmp_path / "run")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: give --prompt, such as '12 7 3': the model was trained on token numbers\n",
    )
    refused = pipetrain_here("generate", tmp_path / "run", "--prompt", "")
    assert (refused.returncode, refused.stderr) == (2, "error: --prompt: is empty; give at least one token\n")


def test_a_model_without_line_breaks_needs_a_prompt(tmp_path: Path) -> None:
    _file(tmp_path / "a.txt", TEXT.replace("\n", " "))
    (tmp_path / "job.yaml").write_text(json.dumps(_job("a.txt")))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    refused = pipetrain_here("generate", tmp_path / "run")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: give --prompt: without it a text begins with a line break, for which the model has no token\n",
    )
    refused = pipetrain_here("generate", tmp_path / "run", "--prompt", "\n")
    assert "--prompt: character '\\n' at position 1 is not in the vocabulary" in refused.stderr
    assert pipetrain_here("generate", tmp_path / "run", "--prompt", "the", "--tokens", "2").returncode == 0


def test_a_file_that_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    source = _file(tmp_path / "a.txt", TEXT)
    for content, line in (("{}", "is no tokenizer.json: "), ("\0", "is no tokenizer.json: "), (None, "no such file")):
        place = tmp_path / "t.json"
        if content is None:
            place.unlink()
        else:
            place.write_text(content)
        with pytest.raises(InvalidData) as told:
            _load(source, tokens=str(place))
        assert str(told.value).startswith(f"{place}: {line}")
        assert len(str(told.value).splitlines()) == 1
    (tmp_path / "t.json").write_text("{}")
    spec = parse_job(_job(source, tokens=str(tmp_path / "t.json")))
    with pytest.raises(InvalidData, match="only below /elsewhere"):
        load_data(spec, SourceRules(roots=("/elsewhere",), files=(str(source),)))


def test_classes_are_those_of_the_model_if_it_says_how_many(tmp_path: Path) -> None:
    job = _job(_file(tmp_path / "a.txt", TEXT))
    job["model"]["vocabulary"] = 300
    model = load_data(parse_job(job)).spec.model_spec()
    assert (model.vocabulary, model.network.output.features) == (300, 300)


def test_rows_are_recorded_every_so_many_steps(tmp_path: Path) -> None:
    """Means and sums of all steps; an evaluation has the row of the steps before it in front."""
    source, rows = _file(tmp_path / "a.txt", TEXT), dict[str, list[Any]]()
    for every in (1, 4):
        job = _job(source)
        job["training"] |= {"steps": 10, "evaluate_every": 6, "log_every": every}
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        run = tmp_path / f"run{every}"
        arguments = ["train", str(tmp_path / "job.yaml"), "--local", "--run-dir", str(run), "--json"]
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        rows[str(every)] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == [
            *(row["kind"] for row in rows[str(every)]),
            "result",
        ]
    assert [(row["kind"], row["step"], row.get("steps")) for row in rows["4"]] == [
        *[("step", 4, 4), ("step", 6, 2), ("eval", 6, None)],
        *[("step", 8, 2), ("step", 10, 2), ("eval", 10, None)],
    ]
    steps = [row for row in rows["1"] if row["kind"] == "step"]
    assert rows["4"][0]["loss"] == pytest.approx(np.mean([row["loss"] for row in steps[:4]]))
    assert rows["4"][0]["samples"] == 16
    assert rows["4"][-1] == rows["1"][-1]


def test_bytes_of_a_text_are_counted_as_it_lies_on_disk(tmp_path: Path) -> None:
    """Characters of several bytes, and only the tokens that are to be predicted."""
    text = "añ…𝄞b" * 60
    for tokens in ("characters", "bytes"):
        data = _load(_file(tmp_path / "a.txt", text), tokens=tokens)
        assert data.vocabulary is not None
        predicted = data.vocabulary.decode(data.validation.y[:].reshape(-1))
        assert target_bytes(data.validation, data.vocabulary) == len(predicted.encode()) > 3 * 8
    np.save(tmp_path / "a.npy", np.arange(900, dtype=np.uint16))
    numbers = _load(tmp_path / "a.npy")
    assert target_bytes(numbers.validation, numbers.vocabulary) is None


def test_tokens_are_drawn_from_the_likeliest() -> None:
    outputs = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert {TokenDraw(0.0, None, None, s)(outputs) for s in range(5)} == {0}
    drawn = TokenDraw(1.0, None, None, 1)
    counts = np.bincount([drawn(outputs) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    for draw in (TokenDraw(1.0, 2, None, 1), TokenDraw(1.0, None, 0.75, 1)):
        assert {draw(outputs) for _ in range(300)} == {0, 1}


def test_windows_are_indexed_as_an_array_of_rows() -> None:
    tokens = np.arange(30, dtype=np.uint16)
    x, y = Windows(tokens, 5, 5), Windows(tokens, 5, 5, shift=1)
    whole = np.array([tokens[i : i + 5] for i in range(0, 25, 5)])
    assert len(x) == len(y) == 5
    np.testing.assert_array_equal(x[:], whole)
    np.testing.assert_array_equal(y[1:3], whole[1:3] + 1)
    np.testing.assert_array_equal(x[np.array([4, 0])], whole[[4, 0]])
    assert len(Windows(tokens[:5], 5, 5)) == 0


def test_only_a_line_feed_ends_a_line_of_jsonl(tmp_path: Path) -> None:
    """JSON allows other characters that Unicode calls line ends within a text."""
    lines = ["a\u2028b", "c\x85d", "e\u2029f"]
    content = "\r\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in lines * 9)
    data = _load(_file(tmp_path / "a.jsonl", content))
    assert data.vocabulary is not None
    assert data.vocabulary.decode(data.train.x[0:2].reshape(-1)) == "\n".join(lines * 9)[:16]


def test_a_prompt_that_utf8_cannot_hold_is_one_line() -> None:
    with pytest.raises(InvalidData, match=r"^--prompt: character '\\udcff' at position 2 is half of a surrogate pair"):
        Vocabulary("bytes", 256).encode("a\udcff", "--prompt")
